#include "pagedkv/spec/cross_attention_spec.h"

#include <gtest/gtest.h>

#include <vector>

#include "spec_layouts.h"

namespace pagedkv {
namespace {

TEST(CrossAttentionSpecTest, KeepsTheTokensOfTheEncoder) {
  const CrossAttentionSpec spec(byte_layout(4));
  EXPECT_EQ(spec.type_id(), "cross_attention_4_64");
  EXPECT_EQ(spec.kind(), "cross_attention");
  EXPECT_EQ(spec.max_pages_per_request({.max_model_len = 100, .max_encoder_tokens = 0}), 0);
  EXPECT_EQ(spec.max_memory_usage_bytes({.max_model_len = 100, .max_encoder_tokens = 9}), 3 * 64);
}

TEST(CrossAttentionSpecTest, MergesAndTakesANewPageSize) {
  const CrossAttentionSpec spec(byte_layout(4));
  EXPECT_EQ(CrossAttentionSpec::merge(std::vector{spec, spec}), spec);
  EXPECT_EQ(spec.copy_with_new_page_size(16), CrossAttentionSpec(byte_layout(16)));
  expect_refusal(
      [&] { CrossAttentionSpec::merge(std::vector{spec, CrossAttentionSpec(byte_layout(8))}); },
      "[CrossAttentionSpec] layers of a group must have one type_id");
}

TEST(CrossAttentionSpecTest, RejectsSizesBelowOne) {
  expect_refusal([] { CrossAttentionSpec(byte_layout(4, 0)); },
                 "[CrossAttentionSpec] head_size must be >= 1, got 0");
}

}  // namespace
}  // namespace pagedkv
