#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <list>
#include <stdexcept>
#include <string>
#include <vector>

#include "groups.h"
#include "pagedkv/manager/cache_manager.h"

// A manager whose pool is dealt out to data-parallel shards.
namespace pagedkv {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

// Three shards of four pages: 1-3, 4-7, 8-11.
class ShardedCacheManagerTest : public testing::Test {
 protected:
  explicit ShardedCacheManagerTest(std::vector<CacheGroupSpec> groups = {full_group()})
      : manager_(12, groups, 64, {.num_shards = 3}) {}

  Request& make_request(std::string request_id, std::vector<TokenId> tokens) {
    return requests_.emplace_back(std::move(request_id), std::move(tokens));
  }

  bool allocate(Request& request, std::int32_t num_new, ShardId shard, std::int32_t cached = 0) {
    const bool done = manager_.allocate(
        request, {.num_new_tokens = num_new, .num_cached_tokens = cached, .shard = shard});
    EXPECT_NO_THROW(manager_.check_invariants());
    return done;
  }

  void compute(Request& request, ShardId shard) {
    ASSERT_TRUE(allocate(request, request.num_tokens(), shard));
    manager_.commit(request, request.num_tokens());
  }

  std::list<Request> requests_;
  CacheManager manager_;
};

TEST_F(ShardedCacheManagerTest, TakesPagesOfTheShard) {
  Request& first = make_request("a", tokens_of(8));
  ASSERT_TRUE(allocate(first, 8, 2));
  EXPECT_THAT(manager_.page_ids(first, 0), ElementsAre(8, 9));
  Request& second = make_request("b", tokens_of(8));
  ASSERT_TRUE(allocate(second, 8, 0));
  EXPECT_THAT(manager_.page_ids(second, 0), ElementsAre(1, 2));
}

TEST_F(ShardedCacheManagerTest, StaysInTheShardOfItsPages) {
  Request& request = make_request("a", tokens_of(16));
  ASSERT_TRUE(allocate(request, 4, 1));
  ASSERT_TRUE(allocate(request, 8, 2));
  ASSERT_TRUE(allocate(request, 12, kAnyShard));
  EXPECT_THAT(manager_.page_ids(request, 0), ElementsAre(4, 5, 6));
}

TEST_F(ShardedCacheManagerTest, LeavesItsShardIfThatIsAsked) {
  Request& request = make_request("a", tokens_of(16));
  ASSERT_TRUE(allocate(request, 4, 1));
  ASSERT_TRUE(
      manager_.allocate(request, {.num_new_tokens = 8, .shard = 2, .stays_in_shard = false}));
  EXPECT_THAT(manager_.page_ids(request, 0), ElementsAre(4, 8));
  ASSERT_TRUE(allocate(request, 12, 0)) << "its pages are in no common shard";
  EXPECT_THAT(manager_.page_ids(request, 0), ElementsAre(4, 8, 1));
}

TEST_F(ShardedCacheManagerTest, RefusesWhenTheShardIsFullAlthoughOthersHaveRoom) {
  Request& request = make_request("a", tokens_of(20));
  EXPECT_FALSE(allocate(request, 20, 1));
  EXPECT_FALSE(request.is_allocated());
  EXPECT_EQ(manager_.pool().num_free_pages(), 11);
  ASSERT_TRUE(allocate(request, 16, 1));
  EXPECT_FALSE(allocate(request, 20, 2)) << "it stays in shard 1";
  EXPECT_THAT(manager_.page_ids(request, 0), ElementsAre(4, 5, 6, 7));
  EXPECT_EQ(manager_.num_allocated_tokens(request), 16);
  EXPECT_EQ(manager_.pool().num_free_pages(), 7);
  Request& other = make_request("b", tokens_of(16));
  EXPECT_FALSE(allocate(other, 16, 0)) << "the null page is one of shard 0";
}

TEST_F(ShardedCacheManagerTest, TakesTheColdestOfAllWithoutAShard) {
  Request& first = make_request("a", tokens_of(4));
  ASSERT_TRUE(allocate(first, 4, kAnyShard));
  Request& wide = make_request("b", tokens_of(20));
  ASSERT_TRUE(allocate(wide, 20, kAnyShard));
  EXPECT_THAT(manager_.page_ids(wide, 0), ElementsAre(2, 3, 4, 5, 6));
}

TEST_F(ShardedCacheManagerTest, HitsOnlyPagesOfTheShard) {
  Request& first = make_request("a", tokens_of(12));
  compute(first, 1);
  Request& second = make_request("b", tokens_of(12));
  EXPECT_EQ(manager_.match(second, 0), 0);
  EXPECT_EQ(manager_.match(second, 1), 8);
  EXPECT_EQ(manager_.match(second), 8);
  compute(second, 2);
  Request& third = make_request("c", tokens_of(12));
  ASSERT_TRUE(allocate(third, 4, 1, 8));
  EXPECT_THAT(manager_.page_ids(third, 0), ElementsAre(4, 5, 7));
  Request& fourth = make_request("d", tokens_of(12));
  ASSERT_EQ(manager_.match(fourth, 2), 8);
  ASSERT_TRUE(allocate(fourth, 4, 2, 8));
  EXPECT_THAT(manager_.page_ids(fourth, 0), ElementsAre(8, 9, 11));
}

TEST_F(ShardedCacheManagerTest, GoesToTheShardOfItsHit) {
  compute(make_request("a", tokens_of(9)), 2);
  Request& second = make_request("b", tokens_of(12));
  ASSERT_EQ(manager_.match(second), 8);
  ASSERT_TRUE(allocate(second, 4, kAnyShard, 8));
  EXPECT_THAT(manager_.page_ids(second, 0), ElementsAre(8, 9, 11));
}

TEST_F(ShardedCacheManagerTest, RefusesAPrefixThatIsInAnotherShard) {
  compute(make_request("a", tokens_of(12)), 1);
  Request& second = make_request("b", tokens_of(12));
  EXPECT_THAT([&] { allocate(second, 4, 2, 8); },
              ThrowsMessage<std::invalid_argument>(HasSubstr("only 0 of the first 8 tokens")));
  EXPECT_FALSE(second.is_allocated());
  EXPECT_EQ(manager_.pool().num_free_pages(2), 4);
}

TEST_F(ShardedCacheManagerTest, CountsRevivedPagesOfTheShardAsTaken) {
  Request& first = make_request("a", tokens_of(12));
  compute(first, 1);
  manager_.free(first);
  Request& second = make_request("b", tokens_of(20));
  ASSERT_EQ(manager_.match(second, 1), 12);
  EXPECT_FALSE(allocate(second, 8, 1, 12)) << "3 cached and 2 new pages, 4 are free";
  EXPECT_FALSE(second.is_allocated());
  EXPECT_EQ(manager_.pool().num_free_pages(1), 4);
  EXPECT_TRUE(allocate(second, 4, 1, 12));
}

TEST_F(ShardedCacheManagerTest, RefusesForeignShards) {
  Request& request = make_request("a", tokens_of(8));
  for (const ShardId shard : {3, -2, 2'147'483'647}) {
    EXPECT_THROW(allocate(request, 4, shard), std::out_of_range);
    EXPECT_THROW(manager_.match(request, shard), std::out_of_range);
  }
  EXPECT_FALSE(request.is_allocated());
}

TEST_F(ShardedCacheManagerTest, DealsHeldPagesOutAnew) {
  Request& mixed = make_request("a", tokens_of(32));
  ASSERT_TRUE(allocate(mixed, 4, 1));
  manager_.set_num_shards(6);  // 1, 2-3, 4-5, 6-7, 8-9, 10-11
  ASSERT_TRUE(allocate(mixed, 8, 0)) << "page 4 is in shard 2 now";
  EXPECT_THAT(manager_.page_ids(mixed, 0), ElementsAre(4, 5));
  EXPECT_FALSE(allocate(mixed, 12, 0));
  manager_.set_num_shards(1);
  ASSERT_TRUE(allocate(mixed, 12, 0));
  EXPECT_THAT(manager_.page_ids(mixed, 0), ElementsAre(4, 5, 1));
  manager_.set_num_shards(3);
  ASSERT_TRUE(allocate(mixed, 16, 2)) << "mixed now";
  EXPECT_THAT(manager_.page_ids(mixed, 0), ElementsAre(4, 5, 1, 8));
  EXPECT_THROW(manager_.set_num_shards(5), std::invalid_argument);
  EXPECT_THROW(manager_.set_num_shards(0), std::invalid_argument);
  EXPECT_EQ(manager_.pool().shards().size(), 3);
}

TEST_F(ShardedCacheManagerTest, RefusesShardsThatDoNotDivideThePages) {
  const std::vector<CacheGroupSpec> groups = {full_group()};
  EXPECT_THROW(CacheManager(12, groups, 64, {.num_shards = 5}), std::invalid_argument);
  EXPECT_THROW(CacheManager(12, groups, 64, {.num_shards = -1}), std::invalid_argument);
}

class ShardedWindowTest : public ShardedCacheManagerTest {
 protected:
  ShardedWindowTest() : ShardedCacheManagerTest({window_group(4)}) {}
};

TEST_F(ShardedWindowTest, CountsPagesOfTheShardThatTheWindowGivesBack) {
  Request& request = make_request("a", tokens_of(40));
  ASSERT_TRUE(allocate(request, 16, 1));
  manager_.commit(request, 16);
  EXPECT_EQ(manager_.pool().num_free_pages(1), 0);
  EXPECT_TRUE(allocate(request, 12, 1)) << "the window leaves 3 pages of the shard";
  EXPECT_THAT(manager_.page_ids(request, 0), ElementsAre(0, 0, 0, 7, 6, 5, 4));
}

TEST_F(ShardedWindowTest, DoesNotCountPagesThatTheWindowGivesBackElsewhere) {
  Request& request = make_request("a", tokens_of(40));
  ASSERT_TRUE(allocate(request, 12, 1));
  manager_.commit(request, 12);
  Request& other = make_request("b", tokens_of(16, 500));
  ASSERT_TRUE(allocate(other, 16, 2));
  EXPECT_FALSE(
      manager_.allocate(request, {.num_new_tokens = 4, .shard = 2, .stays_in_shard = false}));
  EXPECT_THAT(manager_.page_ids(request, 0), ElementsAre(4, 5, 6));
  manager_.check_invariants();
}

TEST_F(ShardedWindowTest, LeavesTheOtherShardBehind) {
  Request& request = make_request("a", tokens_of(40));
  ASSERT_TRUE(allocate(request, 4, 1));
  manager_.commit(request, 4);
  ASSERT_TRUE(
      manager_.allocate(request, {.num_new_tokens = 8, .shard = 2, .stays_in_shard = false}));
  EXPECT_THAT(manager_.page_ids(request, 0), ElementsAre(4, 8, 9));
  manager_.commit(request, 12);
  ASSERT_TRUE(allocate(request, 4, 0)) << "mixed until the step is made";
  EXPECT_THAT(manager_.page_ids(request, 0), ElementsAre(0, 0, 9, 1));
  manager_.commit(request, 16);
  ASSERT_TRUE(allocate(request, 4, 2)) << "mixed still";
  EXPECT_THAT(manager_.page_ids(request, 0), ElementsAre(0, 0, 0, 1, 10));
  manager_.commit(request, 20);
  ASSERT_TRUE(allocate(request, 4, 2)) << "mixed still";
  manager_.commit(request, 24);
  ASSERT_TRUE(allocate(request, 4, 0)) << "its last two pages are in shard 2";
  EXPECT_EQ(manager_.page_ids(request, 0).back() / 4, 2);
}

TEST_F(ShardedWindowTest, GivingAllPagesBackForgetsTheShard) {
  CacheManager manager(12, std::vector{window_group(1)}, 64, {.num_shards = 3});
  Request request("a", tokens_of(16));
  ASSERT_TRUE(manager.allocate(request, {.num_new_tokens = 8, .shard = 2}));
  manager.set_num_computed_tokens(request, 8);
  EXPECT_THAT(manager.page_ids(request, 0), ElementsAre(0, 0));
  ASSERT_TRUE(manager.allocate(request, {.num_new_tokens = 4, .shard = 1}));
  EXPECT_THAT(manager.page_ids(request, 0), ElementsAre(0, 0, 4));
  manager.check_invariants();
}

TEST_F(ShardedWindowTest, RefusesTheSecondGroupsPagesWithTheFirsts) {
  CacheManager manager(12, std::vector{full_group(), window_group(4)}, 64, {.num_shards = 3});
  Request request("a", tokens_of(16));
  EXPECT_FALSE(manager.allocate(request, {.num_new_tokens = 12, .shard = 1}))
      << "3 and 3 pages, 4 are free there";
  EXPECT_FALSE(request.is_allocated());
  EXPECT_EQ(manager.pool().num_free_pages(), 11);
  ASSERT_TRUE(manager.allocate(request, {.num_new_tokens = 8, .shard = 1}));
  EXPECT_THAT(manager.page_ids(request, 0), ElementsAre(4, 5));
  EXPECT_THAT(manager.page_ids(request, 1), ElementsAre(6, 7));
  manager.check_invariants();
}

}  // namespace
}  // namespace pagedkv
