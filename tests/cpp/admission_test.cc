#include "pagedkv/batch/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "groups.h"

namespace pagedkv {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr std::int32_t kMaxModelLen = 64;

CacheGroupSpec chunk_group(std::int32_t chunk_size, std::int32_t page_size = kPageSize) {
  return {
      ChunkedLocalAttentionSpec(
          {.page_size = page_size, .num_kv_heads = 1, .head_size = 1, .dtype = DType("float32")},
          chunk_size),
      std::nullopt};
}

CacheGroupSpec state_group(MambaCacheMode mode) {
  return {MambaSpec(kPageSize, {{{1}, DType("float32")}}, std::nullopt, mode, 0), std::nullopt};
}

std::int64_t most(const CacheGroupSpec& group, std::int32_t num_tokens,
                  std::int32_t max_new_tokens) {
  const CacheManager manager(2, std::vector<CacheGroupSpec>{group}, kMaxModelLen);
  return max_pages_per_request(manager, {.num_tokens = num_tokens}, max_new_tokens);
}

TEST(MaxPagesPerRequestTest, FullGroupsKeepAllPages) {
  EXPECT_EQ(most(full_group(), 16, 1), 4);
  EXPECT_EQ(most(full_group(), 17, 1), 5);
}

TEST(MaxPagesPerRequestTest, WindowsCountWithWhatTheyHoldAtATime) {
  EXPECT_EQ(most(window_group(6), 64, 5), 4) << "10 tokens";
  EXPECT_EQ(most(window_group(6), 12, 5), 3) << "there are no more";
  EXPECT_EQ(most(window_group(6), 64, 64), 16);
}

TEST(MaxPagesPerRequestTest, StatesAreOnePageOrTwo) {
  EXPECT_EQ(most(state_group(MambaCacheMode::kNone), 64, 4), 1);
  EXPECT_EQ(most(state_group(MambaCacheMode::kAlign), 64, 4), 2);
  EXPECT_EQ(most(state_group(MambaCacheMode::kAlign), 3, 4), 1);
}

TEST(MaxPagesPerRequestTest, GroupsAddUp) {
  const CacheManager manager(2, std::vector<CacheGroupSpec>{full_group(), window_group(6)}, 64);
  EXPECT_EQ(max_pages_per_request(manager, {.num_tokens = 64}, 5), 16 + 4);
}

TEST(MaxPagesPerRequestTest, RefusesWhatCannotBe) {
  const CacheManager manager(2, std::vector<CacheGroupSpec>{full_group()}, kMaxModelLen);
  const auto ask = [&](RequestLength length, std::int32_t max_new_tokens) {
    return [&manager, length, max_new_tokens] {
      max_pages_per_request(manager, length, max_new_tokens);
    };
  };
  const auto says = [](const std::string& text) {
    return ThrowsMessage<std::invalid_argument>(
        HasSubstr("[CacheManager.max_pages_per_request] " + text));
  };
  EXPECT_THAT(ask({0, 0, 0}, 1), says("num_tokens must be >= 1, got 0"));
  EXPECT_THAT(ask({65, 0, 0}, 1), says("num_tokens must be <= max_model_len 64, got 65"));
  EXPECT_THAT(ask({1, -1, 0}, 1), says("num_lookahead_tokens must be >= 0, got -1"));
  EXPECT_THAT(ask({1, 0, -1}, 1), says("num_encoder_tokens must be >= 0, got -1"));
  EXPECT_THAT(ask({1, 0, 0}, 0), says("max_new_tokens must be >= 1, got 0"));
}

// Whatever its groups are and however it steps, a request gets room in a pool of just as many
// pages, whether it starts anew or goes on from what it left in the cache.
TEST(MaxPagesPerRequestRandomTest, SoManyPagesAreEnough) {
  std::mt19937 random(5);
  const auto draw = [&](std::int32_t low, std::int32_t high) {
    return std::uniform_int_distribution<std::int32_t>(low, high)(random);
  };
  std::int32_t num_tight = 0;
  for (int round = 0; round < 600; ++round) {
    const std::vector<CacheGroupSpec> kinds = {full_group(),
                                               window_group(draw(1, 12)),
                                               chunk_group(draw(1, 13)),
                                               chunk_group(4 * draw(1, 3)),
                                               state_group(MambaCacheMode::kNone),
                                               state_group(MambaCacheMode::kAlign)};
    std::vector<CacheGroupSpec> groups;
    for (std::int32_t i = draw(1, 3); i > 0; --i) {
      groups.push_back(kinds[static_cast<std::size_t>(draw(0, 5))]);
    }
    const CacheManagerOptions options{.as_easydel = draw(0, 3) == 0};
    const std::int32_t max_new_tokens = draw(1, 20);
    const std::int32_t num_tokens = draw(1, kMaxModelLen);
    const std::int64_t num_pages = max_pages_per_request(
        CacheManager(2, groups, kMaxModelLen, options), {.num_tokens = num_tokens}, max_new_tokens);
    CacheManager manager(static_cast<PageId>(num_pages) + 1, groups, kMaxModelLen, options);
    Request request("r", tokens_of(static_cast<std::size_t>(num_tokens)));
    std::int32_t num_left_free = manager.pool().num_free_pages();
    for (int start = 0; start < 3; ++start) {
      std::int32_t num_cached = manager.match(request);
      while (request.num_computed_tokens() < num_tokens) {
        const std::int32_t left = num_tokens - request.num_computed_tokens() - num_cached;
        const std::int32_t count = std::min(left, draw(1, max_new_tokens));
        ASSERT_TRUE(manager.allocate(request, count, num_cached)) << "round " << round;
        num_left_free = std::min(num_left_free, manager.pool().num_free_pages());
        manager.commit(request, request.num_computed_tokens() + count);
        manager.check_invariants();
        num_cached = 0;
        if (draw(0, 9) == 0) break;
      }
      manager.free(request);
    }
    num_tight += num_left_free == 0;
  }
  EXPECT_GT(num_tight, 200) << "of 600: else the bound says little";
}

}  // namespace
}  // namespace pagedkv
