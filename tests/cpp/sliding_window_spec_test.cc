#include "pagedkv/spec/sliding_window_spec.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "spec_layouts.h"

namespace pagedkv {
namespace {

constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();

constexpr std::int64_t pages(std::int64_t window, std::int64_t max_model_len,
                             std::int64_t max_num_batched_tokens) {
  return max_sliding_window_pages(
      window, 4,
      {.max_model_len = max_model_len, .max_num_batched_tokens = max_num_batched_tokens});
}
static_assert(pages(1, 100, 0) == 0 + 1);
static_assert(pages(1, 100, 1) == 1 + 1);
static_assert(pages(8, 100, 1) == 2 + 1);
static_assert(pages(8, 100, 2) == 3 + 1);
static_assert(pages(8, 7, 2) == 2 + 1, "no more than the request has");
static_assert(pages(8, 0, 2) == 0 + 1);
static_assert(pages(8, 100, kMax) == 25 + 1, "no overflow");

TEST(SlidingWindowSpecTest, NamesItself) {
  EXPECT_EQ(SlidingWindowSpec(byte_layout(4), 128).type_id(), "sliding_window_128_4_64");
  EXPECT_EQ(SlidingWindowSpec(byte_layout(4), 128).kind(), "sliding_window");
}

TEST(SlidingWindowSpecTest, ALatentCacheMaySlide) {
  AttentionLayout latent = byte_layout(4);
  latent.use_mla = true;
  const SlidingWindowSpec spec(latent, 128);
  EXPECT_EQ(spec.type_id(), "sliding_window_mla_128_4_32");
  EXPECT_EQ(spec.kind(), "sliding_window_mla");
}

TEST(SlidingWindowSpecTest, NeedsMemoryForItsPages) {
  const RequestLimits limits{.max_model_len = 100, .max_num_batched_tokens = 2};
  EXPECT_EQ(SlidingWindowSpec(byte_layout(4), 8).max_memory_usage_bytes(limits), 4 * 64);
}

TEST(SlidingWindowSpecTest, MergeWantsEqualWindows) {
  const SlidingWindowSpec spec(byte_layout(4), 128);
  EXPECT_EQ(SlidingWindowSpec::merge(std::vector{spec, spec}), spec);
  expect_refusal(
      [&] { SlidingWindowSpec::merge(std::vector{spec, SlidingWindowSpec(byte_layout(4), 64)}); },
      "must have one type_id, got sliding_window_128_4_64 and sliding_window_64_4_64");
  EXPECT_NE(spec, SlidingWindowSpec(byte_layout(4), 64));
}

TEST(SlidingWindowSpecTest, NewPageSizeKeepsTheWindow) {
  EXPECT_EQ(SlidingWindowSpec(byte_layout(4), 128).copy_with_new_page_size(16),
            SlidingWindowSpec(byte_layout(16), 128));
}

TEST(SlidingWindowSpecTest, RejectsWindowsBelowOne) {
  expect_refusal([] { SlidingWindowSpec(byte_layout(4), 0); },
                 "[SlidingWindowSpec] sliding_window must be >= 1, got 0");
  expect_refusal([] { SlidingWindowSpec(byte_layout(0), 1); },
                 "[SlidingWindowSpec] page_size must be >= 1, got 0");
}

}  // namespace
}  // namespace pagedkv
