#include "pagedkv/batch/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
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

std::int32_t num_free(const CacheManager& manager) { return manager.pool().num_free_pages(); }

class AdmissionTest : public testing::Test {
 protected:
  std::int32_t needed(CacheManager& manager, Request& request, std::int32_t num_tokens,
                      std::int32_t max_step_tokens = kMaxModelLen) {
    return num_pages_needed(manager, request,
                            {.num_tokens = num_tokens,
                             .num_cached_tokens = manager.match(request),
                             .max_step_tokens = max_step_tokens});
  }

  Request first_{"first", tokens_of(16)};
  Request second_{"second", tokens_of(18)};
  CacheManager full_{16, std::vector<CacheGroupSpec>{full_group()}, kMaxModelLen};
};

TEST_F(AdmissionTest, CountsThePagesOfTokensThatAreNotKnownYet) {
  EXPECT_EQ(needed(full_, first_, 16), 4);
  EXPECT_EQ(needed(full_, first_, 17), 5);
  EXPECT_EQ(needed(full_, first_, 1), 1);
}

TEST_F(AdmissionTest, PagesThatOthersHoldCostNone) {
  ASSERT_TRUE(full_.allocate(first_, 16));
  full_.commit(first_, 16);
  EXPECT_EQ(needed(full_, second_, 18), 1);
  EXPECT_EQ(num_pages_needed(full_, second_, {18, 8, 4}), 3) << "of a prefix cut short";
}

TEST_F(AdmissionTest, CachedPagesThatNobodyHoldsAreTakenToo) {
  ASSERT_TRUE(full_.allocate(first_, 16));
  full_.commit(first_, 16);
  full_.free(first_);
  EXPECT_EQ(needed(full_, second_, 18), 5);
}

TEST_F(AdmissionTest, WindowsCountWithWhatTheyHoldAtATime) {
  CacheManager manager(40, std::vector<CacheGroupSpec>{window_group(6)}, kMaxModelLen);
  EXPECT_EQ(needed(manager, first_, 64, 1), 3) << "6 tokens in a row may lie in 3 pages";
  EXPECT_EQ(needed(manager, first_, 64, 5), 4) << "10 tokens";
  EXPECT_EQ(needed(manager, first_, 12, 5), 3) << "there are no more";
  EXPECT_EQ(needed(manager, first_, 64, 64), 16);
}

TEST_F(AdmissionTest, ChunksCountWithWhatTheyHoldAtATime) {
  CacheManager aligned(40, std::vector<CacheGroupSpec>{chunk_group(8)}, kMaxModelLen);
  EXPECT_EQ(needed(aligned, first_, 64, 1), 2);
  EXPECT_EQ(needed(aligned, first_, 64, 2), 3) << "the last token of a chunk, and one of the next";
  CacheManager odd(40, std::vector<CacheGroupSpec>{chunk_group(6)}, kMaxModelLen);
  EXPECT_EQ(needed(odd, first_, 64, 1), 3) << "a chunk may begin within a page";
}

TEST_F(AdmissionTest, StatesAreOnePageOrTwo) {
  CacheManager plain(40, std::vector<CacheGroupSpec>{state_group(MambaCacheMode::kNone)}, 64);
  EXPECT_EQ(needed(plain, first_, 64), 1);
  CacheManager aligned(40, std::vector<CacheGroupSpec>{state_group(MambaCacheMode::kAlign)}, 64);
  EXPECT_EQ(needed(aligned, first_, 64), 2) << "the one that is read, and the one that is written";
  EXPECT_EQ(needed(aligned, first_, 3), 1);
}

TEST_F(AdmissionTest, RefusesWhatCannotBe) {
  const auto ask = [&](Request& request, Admission admission) {
    return [this, &request, admission] { num_pages_needed(full_, request, admission); };
  };
  const auto says = [](const std::string& text) {
    return ThrowsMessage<std::invalid_argument>(
        HasSubstr("[CacheManager.num_pages_needed] " + text));
  };
  EXPECT_THAT(ask(first_, {0, 0, 1}), says("num_tokens must be in [1, max_model_len 64], got 0"));
  EXPECT_THAT(ask(first_, {65, 0, 1}), says("num_tokens must be in [1, max_model_len 64], got 65"));
  EXPECT_THAT(ask(first_, {16, 0, 0}), says("max_step_tokens must be >= 1, got 0"));
  EXPECT_THAT(ask(first_, {16, 3, 1}), says("num_cached_tokens must be a multiple"));
  EXPECT_THAT(ask(first_, {16, -4, 1}), says("num_cached_tokens must be a multiple"));
  EXPECT_THAT(ask(first_, {16, 20, 1}), says("num_cached_tokens must be a multiple"));
  EXPECT_THAT(ask(first_, {16, 4, 1}), says("only 0 of the first 4 tokens of request 'first'"));
  ASSERT_TRUE(full_.allocate(first_, 4));
  EXPECT_THAT(ask(first_, {16, 0, 1}), says("request 'first' holds pages already"));
}

// Requests of one pool that start, step, finish: a start takes no more pages than was said, of a
// group that keeps all as many; and what a request that has the pool to itself holds, however it
// steps, is never more.
TEST(AdmissionRandomTest, NoRequestTakesMoreThanWasSaid) {
  std::mt19937 random(5);
  const auto draw = [&](std::int32_t low, std::int32_t high) {
    return std::uniform_int_distribution<std::int32_t>(low, high)(random);
  };
  std::int32_t num_tight = 0;
  for (int round = 0; round < 400; ++round) {
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
    const bool as_easydel = draw(0, 3) == 0;
    CacheManager manager(200, groups, kMaxModelLen, {.as_easydel = as_easydel});
    std::vector<std::unique_ptr<Request>> others;  // what the cache holds, and holds fast
    const std::int32_t max_step = draw(1, 20);
    for (int i = 0; i < 4; ++i) {
      const auto length = static_cast<std::size_t>(draw(1, 60));
      auto request = std::make_unique<Request>("r", tokens_of(length));
      const std::int32_t num_cached = manager.match(*request);
      const std::int32_t num_needed =
          num_pages_needed(manager, *request, {request->num_tokens(), num_cached, max_step});
      const std::int32_t before = num_free(manager);
      std::int32_t most_taken = 0;
      for (std::int32_t hit = num_cached; request->num_computed_tokens() < request->num_tokens();
           hit = 0) {
        const std::int32_t left = request->num_tokens() - request->num_computed_tokens() - hit;
        const std::int32_t count = std::min(left, draw(1, max_step));
        ASSERT_TRUE(manager.allocate(*request, count, hit));
        most_taken = std::max(most_taken, before - num_free(manager));
        manager.commit(*request, request->num_computed_tokens() + count);
        manager.check_invariants();
      }
      ASSERT_LE(most_taken, num_needed) << "round " << round;
      num_tight += most_taken == num_needed;
      if (draw(0, 1) == 0) manager.free(*request);
      others.push_back(std::move(request));
    }
  }
  EXPECT_GT(num_tight, 800) << "of 1600: else the bound says little";
}

}  // namespace
}  // namespace pagedkv
