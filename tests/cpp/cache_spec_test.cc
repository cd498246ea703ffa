#include "pagedkv/spec/cache_spec.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "pagedkv/spec/full_attention_spec.h"
#include "spec_layouts.h"

namespace pagedkv {
namespace {

FullAttentionSpec spec_of(std::int32_t page_size, std::int32_t num_kv_heads, std::int32_t head_size,
                          const char* dtype, bool use_mla = false) {
  return FullAttentionSpec({.page_size = page_size,
                            .num_kv_heads = num_kv_heads,
                            .head_size = head_size,
                            .dtype = DType(dtype),
                            .use_mla = use_mla});
}

TEST(DTypeTest, KnowsItsBits) {
  EXPECT_EQ(DType("float32").bits(), 32);
  EXPECT_EQ(DType("bfloat16").bits(), 16);
  EXPECT_EQ(DType("float8_e4m3fn").bits(), 8);
  EXPECT_EQ(DType("int4").bits(), 4);
}

TEST(DTypeTest, RejectsUnknownNames) {
  EXPECT_THROW(DType("bf16"), std::invalid_argument);
  EXPECT_THROW(DType(""), std::invalid_argument);
}

TEST(CacheSpecTest, PageHoldsKeysAndValues) {
  EXPECT_EQ(spec_of(16, 3, 64, "float32").page_size_bytes(), 16 * 3 * 64 * 4 * 2);
  EXPECT_EQ(spec_of(16, 3, 64, "bfloat16").page_size_bytes(), 16 * 3 * 64 * 2 * 2);
  EXPECT_EQ(spec_of(16, 1, 3, "int4").page_size_bytes(), 16 * 3);
}

TEST(CacheSpecTest, LatentPageHoldsOneRowAToken) {
  EXPECT_EQ(spec_of(16, 1, 576, "bfloat16", true).page_size_bytes(), 16 * 576 * 2);
}

TEST(CacheSpecTest, KeysAndValuesMayDifferInSize) {
  AttentionLayout layout = byte_layout(4, 192);
  layout.head_size_v = 128;
  EXPECT_EQ(FullAttentionSpec(layout).page_size_bytes(), 4 * (192 + 128));
  EXPECT_FALSE(FullAttentionSpec(layout).use_mla());
}

TEST(CacheSpecTest, NoValuesIsTheSameAsLatent) {
  AttentionLayout no_values = byte_layout(4);
  no_values.head_size_v = 0;
  AttentionLayout latent = byte_layout(4);
  latent.use_mla = true;
  EXPECT_EQ(FullAttentionSpec(no_values), FullAttentionSpec(latent));
  EXPECT_TRUE(FullAttentionSpec(no_values).use_mla());
  EXPECT_EQ(FullAttentionSpec(latent).head_size_v(), 0);
}

TEST(CacheSpecTest, PaddingReplacesTheSizeOfAPage) {
  AttentionLayout layout = byte_layout(4);
  layout.page_size_padded = 100;
  const FullAttentionSpec spec(layout);
  EXPECT_EQ(spec.page_size_bytes(), 100);
  EXPECT_EQ(spec.real_page_size_bytes(), 64);
  layout.page_size_padded = 64;
  EXPECT_EQ(FullAttentionSpec(layout).page_size_bytes(), 64);
  layout.page_size_padded = 63;
  expect_refusal([&] { FullAttentionSpec{layout}; },
                 "[FullAttentionSpec] page_size_padded must be >= 64, the bytes of a page, got 63");
}

TEST(CacheSpecTest, RejectsSizesBelowOne) {
  expect_refusal([] { spec_of(0, 3, 64, "float32"); },
                 "[FullAttentionSpec] page_size must be >= 1, got 0");
  expect_refusal([] { spec_of(16, -1, 64, "float32"); },
                 "[FullAttentionSpec] num_kv_heads must be >= 1, got -1");
  expect_refusal([] { spec_of(16, 3, 0, "float32"); },
                 "[FullAttentionSpec] head_size must be >= 1, got 0");
}

TEST(CacheSpecTest, RejectsValuesThatCannotBe) {
  AttentionLayout layout = byte_layout(4);
  layout.head_size_v = -1;
  expect_refusal([&] { FullAttentionSpec{layout}; }, "head_size_v must be >= 0, got -1");
  layout.head_size_v = 8;
  layout.use_mla = true;
  expect_refusal([&] { FullAttentionSpec{layout}; }, "head_size_v must be 0 with use_mla, got 8");
}

TEST(CacheSpecTest, RejectsPagesThatAreNotWholeBytes) {
  EXPECT_THROW(spec_of(1, 1, 3, "int4", true), std::invalid_argument);
}

TEST(CacheSpecTest, RejectsPagesTooLargeToCount) {
  constexpr std::int32_t kHuge = 2'000'000'000;
  EXPECT_THROW(spec_of(kHuge, kHuge, kHuge, "float32"), std::invalid_argument);
}

TEST(CacheSpecTest, RejectsBadLimits) {
  const FullAttentionSpec spec(byte_layout(4));
  expect_refusal([&] { spec.max_memory_usage_bytes({.max_model_len = -1}); },
                 "[max_memory_usage_bytes] max_model_len must be >= 0, got -1");
  expect_refusal([&] { spec.max_memory_usage_bytes({.max_num_batched_tokens = -2}); },
                 "max_num_batched_tokens must be >= 0, got -2");
  expect_refusal([&] { spec.max_memory_usage_bytes({.max_encoder_tokens = -3}); },
                 "max_encoder_tokens must be >= 0, got -3");
  expect_refusal([&] { spec.max_memory_usage_bytes({.max_model_len = INT64_MAX}); },
                 "more than 2^63 bytes");
}

}  // namespace
}  // namespace pagedkv
