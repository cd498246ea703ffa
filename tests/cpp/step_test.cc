#include "pagedkv/batch/step.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <list>
#include <stdexcept>
#include <string>
#include <vector>

#include "groups.h"

namespace pagedkv {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;

class StepTest : public testing::Test {
 protected:
  StepTest() {
    for (const char* name : {"a", "b", "c"}) {
      requests_.push_back(&owned_.emplace_back(name, tokens_of(20, 100 * name[0])));
    }
  }

  StepGrant allocate(std::vector<std::int32_t> num_new, std::vector<std::int32_t> num_cached = {}) {
    StepGrant grant =
        allocate_step(manager_, std::span(requests_).first(num_new.size()), {num_new, num_cached});
    EXPECT_NO_THROW(manager_.check_invariants());
    return grant;
  }

  void commit(std::vector<std::int32_t> num_new) {
    commit_step(manager_, std::span(requests_).first(num_new.size()), num_new);
  }

  std::list<Request> owned_;
  std::vector<Request*> requests_;
  CacheManager manager_{8, std::vector<CacheGroupSpec>{full_group(), window_group(4)}, 32};
};

TEST_F(StepTest, MatchesEachAsAlone) {
  ASSERT_EQ(allocate({8}).num_requests, 1);
  commit({8});
  Request same("same", tokens_of(20, 100 * 'a'));
  Request salted("salted", tokens_of(20, 100 * 'a'), ExtraKeys({}, {}, "salt"));
  Request longer("longer", tokens_of(33, 100 * 'a'));
  std::vector<Request*> requests = {&same, requests_[1], &salted, requests_[0], &longer};
  std::vector<std::int32_t> counts(requests.size(), -1);
  match_step(manager_, requests, {}, counts);
  EXPECT_THAT(counts, ElementsAre(8, 0, 0, 0, 8)) << "the fourth holds pages";
  for (const Request* request : requests) {
    Request alone("alone", {request->tokens().begin(), request->tokens().end()},
                  request->extra_keys());
    const auto hashes = alone.page_hashes(manager_.hash_page_size(), manager_.hasher());
    const auto batch = std::as_const(*request).num_pages_to_hash(4, manager_.hasher());
    EXPECT_EQ(batch, 0);
    EXPECT_TRUE(std::ranges::equal(hashes, const_cast<Request*>(request)->page_hashes()));
  }
  EXPECT_THROW(match_step(manager_, requests, {}, std::span(counts).first(2)),
               std::invalid_argument);
}

TEST_F(StepTest, MatchesNoneIfOneCannotBeHashed) {
  CacheManager manager(8, std::vector<CacheGroupSpec>{full_group()}, 32,
                       {.hasher = PageHasher(HashAlgorithm::kSha256)});
  Request plain("plain", tokens_of(20, 1));
  Request salted("salted", tokens_of(20, 1), ExtraKeys({}, {}, "salt"));
  std::vector<std::int32_t> counts(2);
  EXPECT_THAT([&] { match_step(manager, std::array{&plain, &salted}, {}, counts); },
              ThrowsMessage<std::invalid_argument>(HasSubstr("request 'salted' has extra keys")));
  EXPECT_THROW(plain.page_hashes(), std::invalid_argument) << "hashed by no manager";
}

TEST_F(StepTest, StopsAtTheFirstThatDoesNotFit) {
  const StepGrant grant = allocate({4, 8, 4});
  EXPECT_EQ(grant.num_requests, 2);
  EXPECT_THAT(grant.changed_rows, ElementsAre(0, 1));
  EXPECT_THAT(grant.added[0].ids, ElementsAre(1, 3, 4));
  EXPECT_THAT(grant.added[0].offsets, ElementsAre(0, 1, 3));
  EXPECT_THAT(grant.added[1].ids, ElementsAre(2, 5, 6));
  EXPECT_FALSE(requests_[2]->is_allocated());
}

TEST_F(StepTest, NotesRowsThatGiveBackPagesWithoutNewOnes) {
  ASSERT_EQ(allocate({12}).num_requests, 1);
  commit({7});
  EXPECT_THAT(allocate({1}).changed_rows, ElementsAre(0)) << "the window has left a page";
  const StepGrant grant = allocate({1});
  EXPECT_THAT(grant.changed_rows, IsEmpty());
  EXPECT_THAT(grant.added[1].offsets, ElementsAre(0, 0));
}

TEST_F(StepTest, CachedPagesAreAmongThoseAdded) {
  ASSERT_EQ(allocate({8}).num_requests, 1);
  commit({8});
  manager_.free(*requests_[0]);
  ASSERT_EQ(manager_.match(*requests_[0]), 8);
  const StepGrant grant = allocate({4}, {8});
  EXPECT_EQ(grant.num_requests, 1);
  EXPECT_THAT(grant.added[0].ids, ElementsAre(1, 2, 5));
  EXPECT_THAT(grant.added[1].ids, ElementsAre(0, 4, 6));
}

TEST_F(StepTest, APrefixThatIsGoneDoesNotFit) {
  EXPECT_EQ(allocate({4, 4}, {0, 8}).num_requests, 1);
  EXPECT_FALSE(requests_[1]->is_allocated());
}

TEST_F(StepTest, RefusesTheWholeStepForOneBadCount) {
  const auto free = manager_.pool().free_pages();
  EXPECT_THAT([&] { allocate({4, 0}); }, ThrowsMessage<std::invalid_argument>(
                                             HasSubstr("num_new_tokens must be >= 1, got 0")));
  EXPECT_THAT([&] { allocate_step(manager_, requests_, {std::vector{1, 1}, {}}); },
              ThrowsMessage<std::invalid_argument>(HasSubstr("got 2 for 3")));
  EXPECT_EQ(manager_.pool().free_pages(), free);
  ASSERT_EQ(allocate({4, 4}).num_requests, 2);
  EXPECT_THAT([&] { commit({4, 5}); }, ThrowsMessage<std::invalid_argument>(
                                           HasSubstr("request 'b' has room for 4 tokens, got 5")));
  EXPECT_EQ(requests_[0]->num_computed_tokens(), 0);
  commit({4, 4});
  EXPECT_EQ(manager_.pool().num_cached_pages(), 4);
}

class StepShardsTest : public testing::Test {
 protected:
  // Puts 8 tokens in shard 0, and 4 of them in shard 1.
  StepShardsTest() {
    for (const ShardId shard : {0, 1}) {
      const std::int32_t count = shard == 0 ? 8 : 4;
      Request request("first", tokens_of(static_cast<std::size_t>(count)));
      EXPECT_TRUE(manager_.allocate(request, {.num_new_tokens = count, .shard = shard}));
      manager_.commit(request, count);
    }
  }

  CacheManager manager_{20, std::vector{full_group()}, 32, {.num_shards = 2}};
  Request a_{"a", tokens_of(12)};
  Request b_{"b", tokens_of(6)};
  std::vector<Request*> requests_ = {&a_, &b_};
};

TEST_F(StepShardsTest, MatchesInEachShard) {
  std::vector<std::int32_t> counts(4, -1);
  match_step_in_shards(manager_, requests_, counts);
  EXPECT_THAT(counts, ElementsAre(8, 4, 4, 4));
  EXPECT_THROW(match_step_in_shards(manager_, requests_, std::span(counts).first(3)),
               std::invalid_argument);
  match_step(manager_, requests_, std::vector<ShardId>{1, kAnyShard}, std::span(counts).first(2));
  EXPECT_THAT(std::span(counts).first(2), ElementsAre(4, 4));
}

TEST_F(StepShardsTest, AllocatesInTheShardOfEach) {
  const std::vector<std::int32_t> num_new = {4, 2}, num_cached = {4, 4};
  const std::vector<ShardId> shards = {1, 0};
  const StepGrant grant =
      allocate_step(manager_, requests_,
                    {.num_new_tokens = num_new, .num_cached_tokens = num_cached, .shards = shards});
  ASSERT_EQ(grant.num_requests, 2);
  EXPECT_GE(manager_.page_ids(a_, 0).front(), 10);
  EXPECT_GE(manager_.page_ids(a_, 0).back(), 10);
  EXPECT_LT(manager_.page_ids(b_, 0).back(), 10);
  manager_.check_invariants();
}

TEST_F(StepShardsTest, RefusesAForeignShardBeforeAnythingIsDone) {
  const std::vector<std::int32_t> num_new = {4, 2};
  for (const ShardId shard : {-2, 2}) {
    const std::vector<ShardId> shards = {1, shard};
    EXPECT_THROW(allocate_step(manager_, requests_, {.num_new_tokens = num_new, .shards = shards}),
                 std::out_of_range);
  }
  EXPECT_THROW(allocate_step(manager_, requests_,
                             {.num_new_tokens = num_new, .shards = std::span(num_new).first(1)}),
               std::invalid_argument);
  EXPECT_FALSE(a_.is_allocated());
}

TEST_F(StepTest, AdmitsAboveTheWatermarkOnly) {
  ASSERT_EQ(allocate({4}).num_requests, 1);
  commit({4});  // 5 of 7 pages are free
  const std::vector<std::int32_t> num_new = {4, 4};
  const StepGrant grant = allocate_step(manager_, std::span(requests_).first(2),
                                        {.num_new_tokens = num_new, .watermark_pages = 3});
  EXPECT_EQ(grant.num_requests, 1) << "the running one may go below it";
  EXPECT_EQ(manager_.pool().num_free_pages(), 3);
}

TEST_F(StepTest, TellsWhichRowsDeduplicationChanged) {
  CacheManager manager(20, std::vector{full_group()}, 32, {.deduplicate = true});
  Request same("same", tokens_of(20, 100 * 'a'));
  const std::vector<Request*> requests = {requests_[0], requests_[1], &same};
  const std::vector<std::int32_t> num_new = {4, 4, 4};
  ASSERT_EQ(allocate_step(manager, requests, {num_new, {}}).num_requests, 3);
  EXPECT_THAT(commit_step(manager, requests, num_new), ElementsAre(2));
  manager.check_invariants();
}

TEST_F(StepTest, ForksUpToTheFirstThatDoesNotFit) {
  CacheManager manager(6, std::vector{full_group()}, 32);
  Request parent("parent", tokens_of(6));
  ASSERT_TRUE(manager.allocate(parent, 6));
  manager.commit(parent, 6);
  std::list<Request> children;
  std::vector<Request*> parents, forked;
  for (int i = 0; i < 4; ++i) {
    parents.push_back(&parent);
    forked.push_back(&children.emplace_back("child", tokens_of(6)));
  }
  const StepFork fork = fork_step(manager, parents, forked);
  EXPECT_EQ(fork.num_requests, 3);
  EXPECT_THAT(fork.copies,
              ElementsAre(ElementsAre(PageCopy{2, 3}, PageCopy{2, 4}, PageCopy{2, 5})));
  EXPECT_FALSE(children.back().is_allocated());
  manager.check_invariants();
  EXPECT_THROW(fork_step(manager, std::span(parents).first(1), forked), std::invalid_argument);
}

TEST_F(StepTest, ForksNoneIfOneIsNoFork) {
  CacheManager manager(16, std::vector{full_group()}, 32);
  Request parent("parent", tokens_of(6)), good("good", tokens_of(6)), bad("bad", tokens_of(5));
  ASSERT_TRUE(manager.allocate(parent, 6));
  manager.commit(parent, 6);
  EXPECT_THROW(fork_step(manager, std::array{&parent, &parent}, std::array{&good, &bad}),
               std::invalid_argument);
  EXPECT_FALSE(good.is_allocated());
}

}  // namespace
}  // namespace pagedkv
