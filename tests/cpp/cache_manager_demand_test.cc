#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <list>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "groups.h"
#include "pagedkv/manager/cache_manager.h"
#include "pagedkv/policy/group_policy.h"

// What schedulers ask of a manager besides `match`, `allocate` and `commit`.
namespace pagedkv {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

class DemandTest : public testing::Test {
 protected:
  explicit DemandTest(std::vector<CacheGroupSpec> groups = {full_group(), full_group()})
      : manager_(16, groups, 32) {}

  Request& make_request(std::string request_id, std::vector<TokenId> tokens) {
    return requests_.emplace_back(std::move(request_id), std::move(tokens));
  }

  Request& compute(std::string request_id, std::vector<TokenId> tokens) {
    Request& request = make_request(std::move(request_id), std::move(tokens));
    EXPECT_TRUE(manager_.allocate(request, request.num_tokens()));
    manager_.commit(request, request.num_tokens());
    return request;
  }

  // Expects that the request does not get this prefix of 8 tokens, and that nothing has changed.
  void expect_refusal(Request& request, GroupPages prefix, const char* text) {
    const auto free = manager_.pool().free_pages();
    const Demand demand{
        .num_new_tokens = 1, .num_cached_tokens = 8, .may_be_ahead = true, .prefix = &prefix};
    EXPECT_THAT([&] { (void)manager_.allocate(request, demand); },
                ThrowsMessage<std::invalid_argument>(HasSubstr(text)));
    EXPECT_NO_THROW(manager_.check_invariants());
    EXPECT_FALSE(request.is_allocated());
    EXPECT_EQ(manager_.pool().free_pages(), free);
  }

  std::list<Request> requests_;
  CacheManager manager_;
};

TEST_F(DemandTest, MakesRoomForTokensThatAreNotKnownYet) {
  Request& request = make_request("a", tokens_of(4));
  EXPECT_THROW((void)manager_.allocate(request, 6), std::invalid_argument);
  ASSERT_TRUE(manager_.allocate(request, {.num_new_tokens = 6, .may_be_ahead = true}));
  EXPECT_EQ(manager_.num_allocated_tokens(request), 6);
  EXPECT_EQ(manager_.page_ids(request, 0).size(), 2U);
  manager_.check_invariants();
}

TEST_F(DemandTest, MakesNoRoomPastTheLongestRequest) {
  Request& request = make_request("a", tokens_of(4));
  const Demand far{
      .num_new_tokens = 2'147'483'647, .num_lookahead_tokens = 2'147'483'647, .may_be_ahead = true};
  EXPECT_FALSE(manager_.allocate(request, far)) << "8 pages a group, 15 are free";
  CacheManager roomy(32, std::vector{full_group()}, 32);
  ASSERT_TRUE(roomy.allocate(request, far));
  EXPECT_EQ(roomy.num_allocated_tokens(request), 32);
  ASSERT_TRUE(roomy.allocate(request, far));
  EXPECT_EQ(roomy.page_ids(request, 0).size(), 8U);
  roomy.check_invariants();
  roomy.free(request);
}

TEST_F(DemandTest, TakesThePagesThatFindPrefixGave) {
  Request& first = compute("a", tokens_of(12));
  Request& second = make_request("b", tokens_of(12));
  GroupPages prefix;
  ASSERT_EQ(manager_.find_prefix(second, 11, kAnyShard, prefix), 8);
  EXPECT_THAT(prefix, ElementsAre(ElementsAre(1, 2), ElementsAre(4, 5)));
  ASSERT_TRUE(
      manager_.allocate(second, {.num_new_tokens = 4, .num_cached_tokens = 8, .prefix = &prefix}));
  EXPECT_THAT(manager_.page_ids(second, 0), ElementsAre(1, 2, 7));
  EXPECT_EQ(second.num_computed_tokens(), 8);
  EXPECT_EQ(manager_.pool().ref_count(1), 2);
  manager_.free(first);
  manager_.check_invariants();
}

TEST_F(DemandTest, FindsPrefixesOfRequestsThatHoldPages) {
  Request& request = compute("a", tokens_of(12));
  GroupPages prefix;
  EXPECT_EQ(manager_.find_prefix(request, 11, kAnyShard, prefix), 8);
  EXPECT_EQ(manager_.find_prefix(request, 2'147'483'647, kAnyShard, prefix), 12);
  EXPECT_EQ(manager_.find_prefix(request, 3, kAnyShard, prefix), 0);
  EXPECT_EQ(manager_.find_prefix(request, -1, kAnyShard, prefix), 0);
  EXPECT_THAT(prefix, ElementsAre(ElementsAre(), ElementsAre()));
  EXPECT_THROW(manager_.find_prefix(request, 11, 1, prefix), std::out_of_range);
}

TEST_F(DemandTest, RefusesAPrefixThatWasEvicted) {
  Request& first = compute("a", tokens_of(12));
  Request& second = make_request("b", tokens_of(12));
  GroupPages prefix;
  ASSERT_EQ(manager_.find_prefix(second, 11, kAnyShard, prefix), 8);
  manager_.free(first);
  Request& storm = make_request("s", tokens_of(28, 500));
  ASSERT_TRUE(manager_.allocate(storm, 28));
  expect_refusal(second, prefix, "has other content (now)");
  manager_.commit(storm, 28);
  expect_refusal(second, prefix, "has other content (now)");
  manager_.free(storm);
  expect_refusal(second, prefix, "has other content (now)");
}

TEST_F(DemandTest, RefusesPagesOfAnotherRequest) {
  compute("a", tokens_of(12));
  Request& second = make_request("b", tokens_of(12, 101));
  expect_refusal(second, {{1, 2}, {4, 5}}, "page 1 of group 0 has other content (now)");
}

TEST_F(DemandTest, RefusesPagesInTheWrongPlace) {
  compute("a", tokens_of(12));
  Request& second = make_request("b", tokens_of(12));
  expect_refusal(second, {{2, 1}, {4, 5}}, "page 2 of group 0");
  expect_refusal(second, {{1, 1}, {4, 5}}, "page 1 of group 0");
  expect_refusal(second, {{4, 5}, {1, 2}}, "page 4 of group 0");
  expect_refusal(second, {{1, 2}, {4, 2}}, "page 2 of group 1");
}

TEST_F(DemandTest, RefusesRowsOfTheWrongLength) {
  compute("a", tokens_of(12));
  Request& second = make_request("b", tokens_of(12));
  expect_refusal(second, {}, "got 0 rows for 2 groups");
  expect_refusal(second, {{1, 2}}, "got 1 rows for 2 groups");
  expect_refusal(second, {{1, 2}, {4, 5}, {1, 2}}, "got 3 rows for 2 groups");
  expect_refusal(second, {{1, 2}, {4}}, "group 1 has 1 pages");
  expect_refusal(second, {{1, 2, 3}, {4, 5}}, "group 0 has 3 pages");
  Request& brief = make_request("c", tokens_of(7));
  expect_refusal(brief, {{1, 2}, {4, 5}}, "it has fewer tokens");
}

TEST_F(DemandTest, RefusesIdsThatAreNoPages) {
  compute("a", tokens_of(12));
  Request& second = make_request("b", tokens_of(12));
  for (const PageId page : {0, -1, 16, 2'147'483'647, -2'147'483'647 - 1, 15}) {
    expect_refusal(second, {{1, page}, {4, 5}}, "of group 0 has other content (now)");
  }
}

class WindowDemandTest : public DemandTest {
 protected:
  WindowDemandTest() : DemandTest({window_group(5)}) {}
};

TEST_F(WindowDemandTest, TakesNullPagesOnlyWhereTheWindowHasLeft) {
  compute("a", tokens_of(12));
  Request& second = make_request("b", tokens_of(12));
  expect_refusal(second, {{1, 0}}, "page 0 of group 0");
  GroupPages prefix = {{0, 2}};
  ASSERT_TRUE(
      manager_.allocate(second, {.num_new_tokens = 4, .num_cached_tokens = 8, .prefix = &prefix}));
  EXPECT_THAT(manager_.page_ids(second, 0), ElementsAre(0, 2, 4));
  manager_.check_invariants();
}

TEST_F(WindowDemandTest, SetsComputedTokensUpAndDown) {
  Request& request = make_request("a", tokens_of(12));
  EXPECT_THROW(manager_.set_num_computed_tokens(request, 0), std::invalid_argument);
  ASSERT_TRUE(manager_.allocate(request, {.num_new_tokens = 12, .may_be_ahead = true}));
  manager_.set_num_computed_tokens(request, 12);
  EXPECT_EQ(request.num_computed_tokens(), 12);
  EXPECT_THAT(manager_.page_ids(request, 0), ElementsAre(0, 0, 3));
  EXPECT_EQ(manager_.pool().num_cached_pages(), 0) << "nobody finds what is not cached";
  manager_.set_num_computed_tokens(request, 9);
  EXPECT_EQ(request.num_computed_tokens(), 9);
  EXPECT_THAT(manager_.page_ids(request, 0), ElementsAre(0, 0, 3));
  manager_.check_invariants();
  for (const std::int32_t count : {-1, 13, 2'147'483'647}) {
    EXPECT_THROW(manager_.set_num_computed_tokens(request, count), std::invalid_argument);
    EXPECT_EQ(request.num_computed_tokens(), 9);
  }
  ASSERT_TRUE(manager_.allocate(request, 3));
  EXPECT_EQ(manager_.page_ids(request, 0).size(), 3U);
}

TEST_F(WindowDemandTest, NeverFindsPagesThatWereLeftBeforeTheyWereCached) {
  Request& request = make_request("a", tokens_of(12));
  ASSERT_TRUE(manager_.allocate(request, 12));
  manager_.set_num_computed_tokens(request, 12);
  manager_.cache(request, 12);
  EXPECT_EQ(manager_.pool().num_cached_pages(), 1);
  Request& second = make_request("b", tokens_of(13));
  EXPECT_EQ(manager_.match(second), 12) << "the last page is all that the window needs";
  manager_.check_invariants();
}

TEST_F(DemandTest, CachesPagesThatAreNotComputedYet) {
  Request& request = make_request("a", tokens_of(10));
  ASSERT_TRUE(manager_.allocate(request, 10));
  manager_.cache(request, 9);
  EXPECT_EQ(request.num_computed_tokens(), 0);
  Request& second = make_request("b", tokens_of(10));
  EXPECT_EQ(manager_.match(second), 8);
  manager_.check_invariants();
}

TEST_F(DemandTest, RefusesToCacheWhatIsNotThere) {
  Request& request = make_request("a", tokens_of(6));
  const auto expect = [&](std::int32_t num_tokens, const char* text) {
    EXPECT_THAT([&] { manager_.cache(request, num_tokens); },
                ThrowsMessage<std::invalid_argument>(HasSubstr(text)));
    manager_.check_invariants();
    EXPECT_EQ(manager_.pool().num_cached_pages(), 0);
  };
  expect(4, "[CacheManager.cache] request 'a' holds no pages");
  ASSERT_TRUE(manager_.allocate(request, {.num_new_tokens = 8, .may_be_ahead = true}));
  expect(8, "[CacheManager.cache] request 'a' has 6 tokens, got 8");
  expect(9, "request 'a' has room for 8 tokens, got 9");
  expect(-1, "the number of tokens must be >= 0, got -1");
  manager_.cache(request, 6);
  EXPECT_EQ(manager_.pool().num_cached_pages(), 2);
  manager_.cache(request, 0);
  EXPECT_EQ(manager_.pool().num_cached_pages(), 2);
}

TEST(StateDemandTest, RefusesMoreSpeculativePagesThanThereAre) {
  const MambaSpec spec(kPageSize, {{{2}, DType("float32")}}, {}, MambaCacheMode::kAlign,
                       2'147'483'647);
  CacheManager manager(8, std::vector{CacheGroupSpec{spec, {}}}, 32);
  Request request("a", tokens_of(9));
  EXPECT_FALSE(manager.allocate(request, 9));
  EXPECT_FALSE(request.is_allocated());
  manager.check_invariants();
}

TEST_F(DemandTest, TokensThatOthersCanFindAreNotTakenOff) {
  Request& request = compute("a", tokens_of(10));
  manager_.set_num_computed_tokens(request, 3);
  EXPECT_THAT([&] { request.truncate(7); },
              ThrowsMessage<std::invalid_argument>(HasSubstr("has 8 computed tokens")));
  request.truncate(8);
  manager_.free(request);
  request.truncate(2);
  EXPECT_EQ(request.num_tokens(), 2);
}

class AdmissionTest : public DemandTest {
 protected:
  AdmissionTest() : DemandTest({full_group()}) {}  // 15 pages
};

TEST_F(AdmissionTest, KeepsTheWatermarkFree) {
  Request& request = make_request("a", tokens_of(30));
  EXPECT_FALSE(manager_.allocate(request, {.num_new_tokens = 21, .watermark_pages = 10}));
  EXPECT_FALSE(request.is_allocated());
  ASSERT_TRUE(manager_.allocate(request, {.num_new_tokens = 20, .watermark_pages = 10}));
  manager_.commit(request, 18);
  EXPECT_FALSE(manager_.allocate(request, {.num_new_tokens = 3, .watermark_pages = 10}));
  ASSERT_TRUE(manager_.allocate(request, {.num_new_tokens = 2, .watermark_pages = 15}))
      << "takes no page";
  EXPECT_THROW((void)manager_.allocate(request, {.num_new_tokens = 3, .watermark_pages = -1}),
               std::invalid_argument);
  manager_.check_invariants();
}

TEST_F(AdmissionTest, CountsCachedPagesThatWaitForEvictionAsTaken) {
  manager_.free(compute("first", tokens_of(20)));
  Request& request = make_request("a", tokens_of(21));
  const std::int32_t num_cached = manager_.match(request);
  ASSERT_EQ(num_cached, 20);
  Demand demand{.num_new_tokens = 1, .num_cached_tokens = num_cached, .watermark_pages = 10};
  EXPECT_FALSE(manager_.allocate(request, demand));
  demand.watermark_pages = 9;
  EXPECT_TRUE(manager_.allocate(request, demand));
}

TEST_F(AdmissionTest, RefusesARequestThatWillNotFit) {
  Request& running = make_request("running", tokens_of(28));
  ASSERT_TRUE(manager_.allocate(running, 28));  // 8 of 15 are left
  Request& request = make_request("a", tokens_of(32));
  Demand demand{.num_new_tokens = 4, .watermark_pages = 1, .full_sequence_must_fit = true};
  EXPECT_FALSE(manager_.allocate(request, demand));
  demand.watermark_pages = 0;
  EXPECT_TRUE(manager_.allocate(request, demand));
  EXPECT_EQ(manager_.page_ids(request, 0).size(), 1U) << "no more than was asked for";
}

TEST(WindowAdmissionTest, NeedsWhatTheWindowKeepsOfAFullSequence) {
  CacheManager manager(6, std::vector{window_group(5)}, 256);
  Request request("a", tokens_of(200));
  EXPECT_FALSE(manager.allocate(request, {.num_new_tokens = 20, .full_sequence_must_fit = true}));
  EXPECT_FALSE(manager.allocate(request, {.num_new_tokens = 16, .full_sequence_must_fit = true}))
      << "4 pages of a chunk, and 2 of the window before it";
  ASSERT_TRUE(manager.allocate(request, {.num_new_tokens = 12, .full_sequence_must_fit = true}));
  for (std::int32_t computed = 12; computed < 192; computed += 12) {
    manager.commit(request, computed);
    ASSERT_TRUE(manager.allocate(request, 12)) << "as was promised";
  }
}

// What is promised to a request must be enough wherever its steps begin.
TEST(AdmissionBoundTest, NoStepHoldsMorePagesThanTheMost) {
  for (const std::int32_t size : {1, 2, 5, 8, 11}) {
    const std::vector<CacheGroupSpec> groups = {
        full_group(),
        window_group(size),
        {ChunkedLocalAttentionSpec(
             {.page_size = kPageSize, .num_kv_heads = 1, .head_size = 1, .dtype = DType("float32")},
             size),
         std::nullopt},
    };
    for (const CacheGroupSpec& group : groups) {
      const auto policy = make_policy(0, group.kv_cache_spec);
      for (std::int32_t num_new = 1; num_new < 20; ++num_new) {
        for (std::int32_t computed = 0; computed < 40; ++computed) {
          const RequestLength length{computed + num_new, computed % 3};
          EXPECT_GE(policy->max_num_pages(length, num_new),
                    policy->num_pages_for(length) - policy->first_needed_page(computed))
              << size << ", " << computed << " and " << num_new;
        }
      }
    }
  }
}

class DeduplicateTest : public testing::Test {
 protected:
  std::vector<PageId> pages(const Request& request) const {
    const auto ids = manager_.page_ids(request, 0);
    return {ids.begin(), ids.end()};
  }

  CacheManager manager_{16, std::vector{full_group()}, 32, {.deduplicate = true}};
};

TEST_F(DeduplicateTest, TakesThePageThatIsThere) {
  Request a("a", tokens_of(10));
  Request b("b", tokens_of(10));
  for (Request* request : {&a, &b}) ASSERT_TRUE(manager_.allocate(*request, 10));
  EXPECT_FALSE(manager_.commit(a, 10));
  const std::int32_t changes = manager_.num_changes(b);
  EXPECT_TRUE(manager_.commit(b, 10));
  EXPECT_NE(manager_.num_changes(b), changes);
  EXPECT_THAT(pages(a), ElementsAre(1, 2, 3));
  EXPECT_THAT(pages(b), ElementsAre(1, 2, 6));
  EXPECT_EQ(manager_.pool().num_cached_pages(), 2);
  EXPECT_EQ(manager_.pool().num_free_pages(), 11);
  manager_.check_invariants();
  EXPECT_FALSE(manager_.commit(b, 10)) << "nothing new";
}

TEST_F(DeduplicateTest, TakesAPageThatNobodyHolds) {
  Request a("a", tokens_of(8));
  Request b("b", tokens_of(8));
  for (Request* request : {&a, &b}) ASSERT_TRUE(manager_.allocate(*request, 8));
  manager_.commit(a, 8);
  manager_.free(a);
  EXPECT_TRUE(manager_.commit(b, 8));
  EXPECT_THAT(pages(b), ElementsAre(1, 2));
  manager_.check_invariants();
}

TEST(DeduplicateShardsTest, StaysInTheShard) {
  CacheManager manager(16, std::vector{full_group()}, 32, {.num_shards = 2, .deduplicate = true});
  Request a("a", tokens_of(8));
  Request b("b", tokens_of(8));
  ASSERT_TRUE(manager.allocate(a, {.num_new_tokens = 8, .shard = 0}));
  ASSERT_TRUE(manager.allocate(b, {.num_new_tokens = 8, .shard = 1}));
  EXPECT_FALSE(manager.commit(a, 8));
  EXPECT_FALSE(manager.commit(b, 8));
  EXPECT_EQ(manager.pool().num_cached_pages(), 4);
}

}  // namespace
}  // namespace pagedkv
