#include "pagedkv/spec/spec_bytes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace pagedkv {
namespace {

AttentionLayout layout() {
  return {.page_size = 16, .num_kv_heads = 2, .head_size = 8, .dtype = DType("bfloat16")};
}

std::vector<AnyCacheSpec> some_of_each() {
  AttentionLayout latent = layout();
  latent.use_mla = true;
  AttentionLayout padded = layout();
  padded.page_size_padded = 1 << 20;
  padded.head_size_v = 4;
  return {FullAttentionSpec(layout()),
          FullAttentionSpec(latent, 32),
          FullAttentionSpec(padded, std::nullopt, 64),
          SinkFullAttentionSpec(layout(), 32, 128),
          SlidingWindowSpec(layout(), 100),
          ChunkedLocalAttentionSpec(padded, 48),
          CrossAttentionSpec(layout()),
          MambaSpec(64, {{{4, 8}, DType("float32")}, {{3}, DType("bfloat16")}}, 4096,
                    MambaCacheMode::kAlign, 3)};
}

TEST(SpecBytesTest, ReadsWhatWasWritten) {
  for (const AnyCacheSpec& spec : some_of_each()) {
    ByteWriter writer;
    put_spec(writer, spec);
    ByteReader reader("test", writer.bytes());
    EXPECT_EQ(get_spec(reader), spec) << name_of(spec);
    EXPECT_TRUE(reader.is_done()) << name_of(spec);
  }
}

TEST(SpecBytesTest, RefusesEveryBeginning) {
  for (const AnyCacheSpec& spec : some_of_each()) {
    ByteWriter writer;
    put_spec(writer, spec);
    for (std::size_t size = 0; size < writer.bytes().size(); ++size) {
      ByteReader reader("test", writer.bytes().first(size));
      EXPECT_THROW(get_spec(reader), std::invalid_argument) << name_of(spec) << ", " << size;
    }
  }
}

TEST(SpecBytesTest, RefusesUnknownTypes) {
  ByteWriter writer;
  writer.put_text("FutureSpec");
  ByteReader reader("test", writer.bytes());
  EXPECT_THAT([&] { get_spec(reader); }, testing::ThrowsMessage<std::invalid_argument>(
                                             testing::HasSubstr("there is no spec 'FutureSpec'")));
}

}  // namespace
}  // namespace pagedkv
