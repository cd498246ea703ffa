#include "pagedkv/spec/full_attention_spec.h"

#include <gtest/gtest.h>

#include <vector>

#include "pagedkv/spec/sink_full_attention_spec.h"
#include "spec_layouts.h"

namespace pagedkv {
namespace {

TEST(FullAttentionSpecTest, NamesItself) {
  EXPECT_EQ(FullAttentionSpec(byte_layout(4)).type_id(), "full_attention_4_64");
  EXPECT_EQ(FullAttentionSpec(byte_layout(4)).kind(), "full_attention");
  AttentionLayout latent = byte_layout(4);
  latent.use_mla = true;
  EXPECT_EQ(FullAttentionSpec(latent).type_id(), "full_attention_4_32");
  EXPECT_EQ(FullAttentionSpec(latent).kind(), "mla_attention");
}

TEST(FullAttentionSpecTest, KeepsEveryTokenInWholePages) {
  const FullAttentionSpec spec(byte_layout(4));
  EXPECT_EQ(spec.max_pages_per_request({.max_model_len = 0}), 0);
  EXPECT_EQ(spec.max_pages_per_request({.max_model_len = 1}), 1);
  EXPECT_EQ(spec.max_pages_per_request({.max_model_len = 4}), 1);
  EXPECT_EQ(spec.max_memory_usage_bytes({.max_model_len = 5}), 2 * 64);
}

TEST(FullAttentionSpecTest, MergeTakesTheWindowThatAnyLayerHas) {
  const FullAttentionSpec plain(byte_layout(4));
  const FullAttentionSpec windowed(byte_layout(4), 128);
  const FullAttentionSpec chunked(byte_layout(4), std::nullopt, 256);
  EXPECT_EQ(FullAttentionSpec::merge(std::vector{plain, windowed, windowed}), windowed);
  EXPECT_EQ(FullAttentionSpec::merge(std::vector{plain, chunked}), chunked);
  EXPECT_EQ(FullAttentionSpec::merge(std::vector{plain, plain}), plain);
}

TEST(FullAttentionSpecTest, MergeRefusesLayersThatDoNotFit) {
  const FullAttentionSpec windowed(byte_layout(4), 128);
  const auto merge = [](const std::vector<FullAttentionSpec>& specs) {
    return [specs] { FullAttentionSpec::merge(specs); };
  };
  expect_refusal(merge({}), "[FullAttentionSpec] cannot merge 0 specs");
  expect_refusal(merge({windowed, FullAttentionSpec(byte_layout(4), 64)}),
                 "layers of a group must have one window size, got 128 and 64");
  expect_refusal(merge({windowed, FullAttentionSpec(byte_layout(4), std::nullopt, 256)}),
                 "cannot have both a sliding_window (128) and an attention_chunk_size (256)");
  expect_refusal(merge({windowed, FullAttentionSpec(byte_layout(8))}),
                 "must have one type_id, got full_attention_4_64 and full_attention_8_128");
}

TEST(FullAttentionSpecTest, NewPageSizeScalesThePadding) {
  AttentionLayout layout = byte_layout(4);
  layout.page_size_padded = 66;
  const FullAttentionSpec spec(layout, 128);
  const FullAttentionSpec larger = spec.copy_with_new_page_size(8);
  EXPECT_EQ(larger.page_size(), 8);
  EXPECT_EQ(larger.page_size_bytes(), 132);
  EXPECT_EQ(larger.sliding_window(), 128);
  EXPECT_EQ(larger.copy_with_new_page_size(4), spec);
  expect_refusal([&] { spec.copy_with_new_page_size(1); }, "gives no whole bytes for 1");
  expect_refusal([&] { spec.copy_with_new_page_size(0); }, "page_size must be >= 1, got 0");
}

TEST(FullAttentionSpecTest, RejectsWindowsBelowOne) {
  expect_refusal([] { FullAttentionSpec(byte_layout(4), 0); },
                 "[FullAttentionSpec] sliding_window must be >= 1, got 0");
  expect_refusal([] { FullAttentionSpec(byte_layout(4), std::nullopt, -5); },
                 "[FullAttentionSpec] attention_chunk_size must be >= 1, got -5");
}

TEST(SinkFullAttentionSpecTest, IsFullAttentionWithANameOfItsOwn) {
  const SinkFullAttentionSpec spec(byte_layout(4), 8);
  EXPECT_EQ(spec.type_id(), "sink_full_attention_8_4_64");
  EXPECT_EQ(spec.kind(), "sink_full_attention");
  EXPECT_EQ(spec.max_memory_usage_bytes({.max_model_len = 5}), 2 * 64);
  EXPECT_EQ(spec.copy_with_new_page_size(8).sink_len(), 8);
}

TEST(SinkFullAttentionSpecTest, MergeWantsEqualSinks) {
  const SinkFullAttentionSpec spec(byte_layout(4), 8);
  EXPECT_EQ(SinkFullAttentionSpec::merge(std::vector{spec, spec}), spec);
  expect_refusal(
      [&] {
        SinkFullAttentionSpec::merge(std::vector{spec, SinkFullAttentionSpec(byte_layout(4), 4)});
      },
      "[SinkFullAttentionSpec] layers of a group must have one type_id");
}

TEST(SinkFullAttentionSpecTest, RejectsSinksThatAreNotWholePages) {
  expect_refusal([] { SinkFullAttentionSpec(byte_layout(4), 0); },
                 "[SinkFullAttentionSpec] sink_len must be >= 1, got 0");
  expect_refusal([] { SinkFullAttentionSpec(byte_layout(4), 6); },
                 "[SinkFullAttentionSpec] sink_len must be a multiple of page_size 4, got 6");
}

}  // namespace
}  // namespace pagedkv
