#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <list>
#include <stdexcept>
#include <string>
#include <vector>

#include "groups.h"
#include "pagedkv/hash/xxh3.h"
#include "pagedkv/manager/cache_manager.h"
#include "random.h"
#include "traffic.h"

namespace pagedkv {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr PageId kNumPages = 24;
constexpr std::int32_t kMaxLen = 48;

using Snapshot = std::vector<std::byte>;

class SnapshotTest : public testing::Test {
 protected:
  std::unique_ptr<CacheManager> make(const CacheManagerOptions& options = {}) const {
    return std::make_unique<CacheManager>(kNumPages, groups_, kMaxLen, options);
  }

  void expect_refused(CacheManager& manager, std::span<const std::byte> snapshot,
                      const char* text) const {
    const auto order = manager.pool().free_pages();
    const auto contents = manager.pool().contents();
    EXPECT_THAT([&] { manager.restore(snapshot); },
                ThrowsMessage<std::invalid_argument>(HasSubstr(text)));
    EXPECT_EQ(manager.pool().free_pages(), order);
    EXPECT_EQ(manager.pool().contents(), contents);
    manager.check_invariants();
  }

  std::vector<CacheGroupSpec> groups_ = {full_group(), window_group(6)};
};

// The naive model: a second manager that had the same calls, and then let go of all requests.
TEST_F(SnapshotTest, ARestoredManagerIsLikeOneThatFreedAll) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    CacheManagerOptions options;
    options.num_shards = seed % 3 + 1;
    if (seed % 4 == 0) options.free_order = FreeOrder::kUncachedFirst;
    Traffic traffic(seed);
    const auto before = make(options);
    for (int i = 0; i < 300; ++i) traffic.step(*before);
    const auto after = make(options);
    after->restore(before->snapshot());
    after->check_invariants();
    EXPECT_EQ(after->snapshot(), before->snapshot());
    EXPECT_EQ(after->num_requests(), 0);

    while (before->num_requests() > 0) {  // in the order of their places
      const std::string next = before->holdings().front().request_id;
      for (Request& request : traffic.requests()) {
        if (before->holds(request) && request.request_id() == next) before->free(request);
      }
    }
    EXPECT_EQ(after->pool().free_pages(), before->pool().free_pages());
    EXPECT_EQ(after->pool().contents(), before->pool().contents());
    // A storm: equal calls on both give equal answers, page by page, until all is evicted.
    for (int i = 0; i < 40; ++i) {
      Request ours("ours", traffic.some_tokens(40));
      Request theirs("theirs", {ours.tokens().begin(), ours.tokens().end()});
      const ShardId shard = i % (options.num_shards + 1) - 1;
      const std::int32_t hit = before->match(ours, shard);
      ASSERT_EQ(after->match(theirs, shard), hit);
      const Demand demand{
          .num_new_tokens = ours.num_tokens() - hit, .num_cached_tokens = hit, .shard = shard};
      ASSERT_EQ(after->allocate(theirs, demand), before->allocate(ours, demand));
      if (!ours.is_allocated()) continue;
      for (GroupId group = 0; group < 2; ++group) {
        ASSERT_TRUE(
            std::ranges::equal(after->page_ids(theirs, group), before->page_ids(ours, group)));
      }
      before->commit(ours, ours.num_tokens());
      after->commit(theirs, theirs.num_tokens());
    }
    EXPECT_EQ(after->pool().free_pages(), before->pool().free_pages());
    after->check_invariants();
  }
}

TEST_F(SnapshotTest, WhatIsPinnedIsSavedAsTheWarmest) {
  const auto before = make();
  Request pinned("pinned", tokens_of(9));
  Request running("running", tokens_of(9, 500));
  for (Request* request : {&pinned, &running}) {
    ASSERT_TRUE(before->allocate(*request, 9));
    before->commit(*request, 9);
  }
  const PinId pin = before->pin(pinned);
  before->free(pinned);
  const auto after = make();
  after->restore(before->snapshot());
  after->check_invariants();
  before->free(running);
  before->unpin(pin);
  EXPECT_EQ(after->pool().free_pages(), before->pool().free_pages());
  EXPECT_EQ(after->pool().contents(), before->pool().contents());
}

TEST_F(SnapshotTest, KeepsTheOrderThatRetentionMade) {
  const auto before = make();
  for (const std::int32_t priority : {90, 10, 50}) {
    Request request("r", tokens_of(8, 1000 * priority));
    request.retain(std::make_shared<const Retention>(RetentionTerm{.priority = priority}));
    ASSERT_TRUE(before->allocate(request, 8));
    before->commit(request, 8);
  }
  const auto after = make();
  after->set_tenant_quota(1, 3);  // so that it has lanes already
  after->restore(before->snapshot());
  after->check_invariants();
  EXPECT_EQ(after->pool().free_pages(), before->pool().free_pages());
}

TEST_F(SnapshotTest, DuplicatesStayInOrder) {
  const auto before = make();
  std::list<Request> requests;
  for (int i = 0; i < 3; ++i) {
    Request& request = requests.emplace_back("r", tokens_of(4));
    ASSERT_TRUE(before->allocate(request, 4));
  }
  for (Request& request : requests) before->commit(request, 4);
  EXPECT_EQ(before->pool().num_cached_keys(), 2);
  EXPECT_EQ(before->pool().num_cached_pages(), 6);
  const auto after = make();
  after->restore(before->snapshot());
  EXPECT_EQ(after->pool().num_cached_keys(), 2);
  EXPECT_EQ(after->pool().contents(), before->pool().contents());
}

TEST_F(SnapshotTest, ShardsMayBeOthers) {
  const auto before = make({.num_shards = 2});
  Request request("a", tokens_of(9));
  ASSERT_TRUE(before->allocate(request, {.num_new_tokens = 9, .shard = 1}));
  before->commit(request, 9);
  const auto after = make();
  after->restore(before->snapshot());
  Request again("b", tokens_of(9));
  EXPECT_EQ(after->match(again), 8);
  after->set_num_shards(2);
  EXPECT_EQ(after->match(again, 1), 8);
  EXPECT_EQ(after->match(again, 0), 0);
  after->check_invariants();
}

TEST_F(SnapshotTest, OtherConfigurationsAreNamed) {
  const auto before = make();
  const Snapshot snapshot = before->snapshot();
  const auto refuse = [&](PageId num_pages, std::vector<CacheGroupSpec> groups,
                          const CacheManagerOptions& options, const char* text) {
    CacheManager manager(num_pages, groups, kMaxLen, options);
    expect_refused(manager, snapshot, text);
  };
  refuse(25, groups_, {}, "the snapshot has num_pages 24, this manager 25");
  refuse(kNumPages, {full_group()}, {}, "the snapshot has a number of groups 2, this manager 1");
  refuse(kNumPages, {full_group(), window_group(7)}, {},
         "group 1 of another spec: sliding_window_6");
  refuse(kNumPages, groups_, {.hasher = PageHasher(HashAlgorithm::kPagedkv)},
         "the snapshot has hash algorithm sha256_cbor, this manager pagedkv");
  refuse(kNumPages, groups_, {.hasher = PageHasher(HashAlgorithm::kSha256Cbor, "else")},
         "another hash_seed");
  refuse(kNumPages, groups_, {.hash_page_size = 2},
         "the snapshot has hash_page_size 4, this manager 2");
  refuse(kNumPages, groups_, {.enable_caching = false}, "caching is off");
}

TEST_F(SnapshotTest, ManagersThatHoldOrCacheAreRefused) {
  const auto manager = make();
  const Snapshot snapshot = manager->snapshot();
  Request request("a", tokens_of(9));
  ASSERT_TRUE(manager->allocate(request, 9));
  expect_refused(*manager, snapshot, "must be empty, it has 1 requests with pages and 0 cached");
  manager->commit(request, 9);
  manager->free(request);
  expect_refused(*manager, snapshot, "0 requests with pages and 4 cached pages");
  EXPECT_TRUE(manager->reset_prefix_cache());
  manager->restore(snapshot);
  EXPECT_EQ(manager->pool().free_pages(), make()->pool().free_pages());
}

TEST_F(SnapshotTest, EveryFlippedBitAndEveryBeginningIsRefused) {
  const auto before = make();
  Traffic traffic(3);
  for (int i = 0; i < 300; ++i) traffic.step(*before);
  ASSERT_GT(before->pool().num_cached_pages(), 3);
  const Snapshot whole = before->snapshot();
  const auto after = make();
  for (std::size_t bit = 0; bit < 8 * whole.size(); ++bit) {
    Snapshot damaged = whole;
    damaged[bit / 8] ^= std::byte(1 << bit % 8);
    ASSERT_THROW(after->restore(damaged), std::invalid_argument) << "bit " << bit;
  }
  for (std::size_t size = 0; size < whole.size(); ++size) {
    ASSERT_THROW(after->restore(std::span(whole).first(size)), std::invalid_argument) << size;
  }
  Snapshot longer = whole;
  longer.push_back(std::byte{0});
  expect_refused(*after, longer, "the snapshot is damaged");
  longer[8] = std::byte{2};
  expect_refused(*after, longer, "the snapshot is of version 2, this reads version 1");
  expect_refused(*after, std::span(whole).first(4), "these 4 bytes are no snapshot");
  EXPECT_EQ(after->pool().num_cached_pages(), 0);
  after->restore(whole);
  EXPECT_EQ(after->snapshot(), whole);
}

// With a checksum that is right.
Snapshot forged(Snapshot snapshot) {
  const auto covered = std::span(snapshot).first(snapshot.size() - sizeof(Xxh3Digest));
  std::ranges::copy(xxh3_128(covered), snapshot.end() - sizeof(Xxh3Digest));
  return snapshot;
}

TEST_F(SnapshotTest, ForgedSnapshotsAreRefusedOrWhole) {
  const auto before = make();
  Traffic traffic(3);
  for (int i = 0; i < 300; ++i) traffic.step(*before);
  const Snapshot whole = before->snapshot();
  std::string messages;
  for (std::size_t bit = 12 * 8; bit < 8 * (whole.size() - sizeof(Xxh3Digest)); ++bit) {
    Snapshot changed = whole;
    changed[bit / 8] ^= std::byte(1 << bit % 8);
    const auto after = make();
    try {
      after->restore(forged(changed));  // other digests, say
    } catch (const std::invalid_argument& error) {
      messages += error.what();
      ASSERT_EQ(after->pool().num_cached_pages(), 0);
    }
    ASSERT_NO_THROW(after->check_invariants()) << "bit " << bit;
  }
  EXPECT_THAT(messages, HasSubstr("is there twice"));
  EXPECT_THAT(messages, HasSubstr("a page id is out of range"));
  EXPECT_THAT(messages, HasSubstr("page must be in [1, 24), got"));
  EXPECT_THAT(messages, HasSubstr("there is no group"));
}

// The counts as they follow from what can be seen before and after each call.
TEST(ManagerStatsTest, AgreeWithANaiveCount) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    Traffic traffic(seed);
    CacheManager manager(16, std::vector{full_group(), window_group(5)}, kMaxLen);
    PageId most_pages = 0;
    std::int32_t most_requests = 0;
    for (int i = 0; i < 400; ++i) {
      const ManagerStats before = manager.stats();
      traffic.step(manager);
      manager.check_invariants();
      const ManagerStats stats = manager.stats();
      PageId num_held = 0;
      for (PageId page = 1; page < 16; ++page) num_held += manager.pool().ref_count(page) > 0;
      std::int32_t num_requests = 0;
      for (const Request& request : traffic.requests()) num_requests += manager.holds(request);
      most_pages = std::max(most_pages, num_held);
      most_requests = std::max(most_requests, num_requests);
      ASSERT_EQ(stats.num_held_pages, num_held);
      ASSERT_EQ(stats.num_requests, num_requests);
      ASSERT_GE(stats.pool.peak_held, most_pages);
      ASSERT_EQ(stats.peak_requests, most_requests);
      ASSERT_EQ(stats.pool.num_allocated + stats.pool.num_reused - stats.pool.num_freed, num_held);
      ASSERT_GE(stats.num_failed_allocations, before.num_failed_allocations);
      ASSERT_EQ(stats.pool.num_evicted, manager.pool().num_evictions());
      std::int32_t num_named = 0;
      for (const Holding& holding : manager.holdings()) num_named += holding.num_pages;
      ASSERT_GE(num_named, num_held);  // shared pages have several holders
    }
  }
}

TEST(ManagerStatsTest, CountsEachThing) {
  CacheManager manager(5, std::vector{full_group()}, kMaxLen);
  Request first("first", tokens_of(9));
  ASSERT_TRUE(manager.allocate(first, 9));
  manager.commit(first, 9);
  Request second("second", tokens_of(9));
  ASSERT_TRUE(manager.allocate(second, 1, 8));
  Request third("third", tokens_of(5, 900));
  EXPECT_FALSE(manager.allocate(third, 5));
  manager.free(first);
  manager.free(second);
  ASSERT_TRUE(manager.allocate(second, 1, 8));
  manager.free(second);
  ASSERT_TRUE(manager.allocate(third, 5));
  Request fourth("fourth", tokens_of(8, 800));
  ASSERT_TRUE(manager.allocate(fourth, 8));
  const ManagerStats stats = manager.stats();
  EXPECT_EQ(stats.num_held_pages, 4);
  EXPECT_EQ(stats.num_requests, 2);
  EXPECT_EQ(stats.peak_requests, 2);
  EXPECT_EQ(stats.num_failed_allocations, 1);
  EXPECT_EQ(stats.pool.num_allocated, 3 + 1 + 1 + 2 + 2);
  EXPECT_EQ(stats.pool.num_reused, 2);
  EXPECT_EQ(stats.pool.num_freed, 4 + 3);
  EXPECT_EQ(stats.pool.num_cached, 2);
  EXPECT_EQ(stats.pool.num_evicted, 2);
  EXPECT_EQ(stats.pool.peak_held, 4);
  ASSERT_EQ(manager.holdings().size(), 2);
  EXPECT_EQ(manager.holdings()[0].request_id, "fourth");  // it has the place of `first`
  EXPECT_EQ(manager.holdings()[1].num_pages, 2);
}

}  // namespace
}  // namespace pagedkv
