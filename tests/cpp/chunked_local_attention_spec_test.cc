#include "pagedkv/spec/chunked_local_attention_spec.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "spec_layouts.h"

namespace pagedkv {
namespace {

constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();

constexpr std::int64_t pages(std::int64_t chunk_size, std::int64_t max_model_len,
                             std::int64_t max_num_batched_tokens) {
  return max_chunk_pages(
      chunk_size, 4,
      {.max_model_len = max_model_len, .max_num_batched_tokens = max_num_batched_tokens});
}
static_assert(pages(8, 100, 0) == 2);
static_assert(pages(8, 100, 1) == 3);
static_assert(pages(8, 9, 100) == 3, "no more than the request has");
static_assert(pages(8, 0, 100) == 0);
static_assert(pages(8, 100, kMax) == 25, "no overflow");

TEST(ChunkedLocalAttentionSpecTest, NamesItself) {
  const ChunkedLocalAttentionSpec spec(byte_layout(4), 128);
  EXPECT_EQ(spec.type_id(), "local_attention_128_4_64");
  EXPECT_EQ(spec.kind(), "chunked_local_attention");
  EXPECT_EQ(spec.max_memory_usage_bytes({.max_model_len = 8, .max_num_batched_tokens = 1}), 128);
}

TEST(ChunkedLocalAttentionSpecTest, MergeWantsEqualChunks) {
  const ChunkedLocalAttentionSpec spec(byte_layout(4), 128);
  EXPECT_EQ(ChunkedLocalAttentionSpec::merge(std::vector{spec, spec}), spec);
  expect_refusal(
      [&] {
        ChunkedLocalAttentionSpec::merge(
            std::vector{spec, ChunkedLocalAttentionSpec(byte_layout(4), 64)});
      },
      "must have one type_id, got local_attention_128_4_64 and local_attention_64_4_64");
}

TEST(ChunkedLocalAttentionSpecTest, NewPageSizeKeepsTheChunk) {
  EXPECT_EQ(ChunkedLocalAttentionSpec(byte_layout(4), 128).copy_with_new_page_size(16),
            ChunkedLocalAttentionSpec(byte_layout(16), 128));
}

TEST(ChunkedLocalAttentionSpecTest, RejectsChunksBelowOne) {
  expect_refusal([] { ChunkedLocalAttentionSpec(byte_layout(4), 0); },
                 "[ChunkedLocalAttentionSpec] attention_chunk_size must be >= 1, got 0");
}

}  // namespace
}  // namespace pagedkv
