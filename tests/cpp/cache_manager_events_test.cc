#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "groups.h"
#include "hashes.h"
#include "pagedkv/manager/cache_manager.h"
#include "traffic.h"

namespace pagedkv {
namespace {

using testing::HasSubstr;
using testing::SizeIs;
using testing::ThrowsMessage;

constexpr PageId kNumPages = 24;
constexpr std::int32_t kMaxLen = 48;
constexpr std::size_t kManyPages = 1 << 20;

using Key = std::tuple<ShardId, GroupId, std::array<std::byte, 32>>;
using Keys = std::set<Key>;

/// What a reader of the events knows. Refuses events that do not fit what came before.
class Reader {
 public:
  explicit Reader(const PageHasher& hasher = PageHasher()) : hasher_(hasher) {}

  void read(const EventBatch& batch) {
    for (const PageEvent& event : batch.events) {
      if (event.kind == PageEventKind::kCleared) keys_.clear();
      const auto digests = batch.digests_of(event);
      for (std::size_t i = 0; i < digests.size(); ++i) {
        const Key key{event.shard, event.group, digests[i].bytes};
        if (event.kind == PageEventKind::kStored) {
          EXPECT_TRUE(keys_.insert(key).second) << "stored twice";
          if (event.page_size > 0) check_digest(batch, event, i);
        } else {
          EXPECT_EQ(keys_.erase(key), 1) << "removed and not stored";
        }
      }
    }
  }

  const Keys& keys() const { return keys_; }
  int num_checked() const { return num_checked_; }

 private:
  // Only where pages are hashed one by one.
  void check_digest(const EventBatch& batch, const PageEvent& event, std::size_t i) {
    if (event.page_size != event.hash_page_size) return;
    const auto size = static_cast<std::size_t>(event.page_size);
    const auto digests = batch.digests_of(event);
    std::vector<std::byte> extra;
    if (event.extra_keys) {
      event.extra_keys->encode_page(static_cast<std::size_t>(event.first_page) + i, event.page_size,
                                    extra);
    }
    const PageHash parent = i > 0 ? digests[i - 1] : event.parent.value_or(hasher_.root());
    EXPECT_EQ(event.parent.has_value(), event.first_page > 0);
    EXPECT_EQ(hasher_.hash_page(parent, batch.tokens_of(event).subspan(i * size, size), extra),
              digests[i]);
    ++num_checked_;
  }

  PageHasher hasher_;
  Keys keys_;
  int num_checked_ = 0;
};

Keys keys_of(const PagePool& pool) {
  Keys keys;
  for (const PageContent& content : pool.contents()) {
    keys.emplace(pool.shards().shard_of(content.page), content.group, content.hash.bytes);
  }
  return keys;
}

std::unique_ptr<CacheManager> make(const CacheManagerOptions& options = {}) {
  const std::vector<CacheGroupSpec> groups = {full_group(), window_group(6)};
  return std::make_unique<CacheManager>(kNumPages, groups, kMaxLen, options);
}

// Of full attention alone.
std::unique_ptr<CacheManager> make_full(PageId num_pages) {
  const std::vector<CacheGroupSpec> groups = {full_group()};
  return std::make_unique<CacheManager>(num_pages, groups, kMaxLen);
}

// The naive model: a set of keys, against the contents of the pool.
TEST(CacheManagerEventsTest, AddUpToWhatThePoolContains) {
  int num_checked = 0;
  for (unsigned seed = 0; seed < 120; ++seed) {
    SCOPED_TRACE(seed);
    CacheManagerOptions options;
    options.num_shards = seed % 3 + 1;
    options.deduplicate = seed % 2 == 0;
    options.prefer_contiguous = seed % 5 == 0;
    if (seed % 4 == 0) options.free_order = FreeOrder::kUncachedFirst;
    Traffic traffic(seed, seed % 2 == 1);
    const auto manager = make(options);
    Reader reader;
    if (seed % 3 > 0) manager->start_events(kManyPages);
    for (int i = 0; i < 300; ++i) {
      traffic.step(*manager);
      if (seed % 7 == 0 && i % 60 == 59) manager->set_num_shards(i % 4 + 1);
      if (seed % 3 == 0 && i == 50) manager->start_events(kManyPages);  // with pages cached
      if (manager->pool().events() == nullptr || i % 4 > 0) continue;
      reader.read(manager->take_events());
      ASSERT_TRUE(reader.keys() == keys_of(manager->pool())) << i;
      manager->check_invariants();
    }
    num_checked += reader.num_checked();
  }
  EXPECT_GT(num_checked, 2000);
}

TEST(CacheManagerEventsTest, TheSamePagesAreGivenWithEventsAndSamples) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    const auto watched = make();
    watched->start_events(8);
    watched->start_residency(0.5, {1, 10});
    const auto plain = make();
    for (const auto& manager : {watched.get(), plain.get()}) {
      Traffic traffic(seed, true);
      for (int i = 0; i < 300; ++i) traffic.step(*manager);
      traffic.finish(*manager);
    }
    EXPECT_EQ(watched->pool().free_pages(), plain->pool().free_pages());
    EXPECT_EQ(watched->pool().contents(), plain->pool().contents());
  }
}

TEST(CacheManagerEventsTest, WhatWasForgottenIsToldAnew) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    CacheManagerOptions options;
    options.num_shards = seed % 2 + 1;
    Traffic traffic(seed, true);
    const auto manager = make(options);
    manager->start_events(3);
    Reader reader;
    for (int i = 0; i < 300; ++i) {
      traffic.step(*manager);
      if (i % 10 > 0) continue;
      reader.read(manager->take_events());
      ASSERT_TRUE(reader.keys() == keys_of(manager->pool())) << i;
      EXPECT_THAT(manager->take_events().events, SizeIs(0));  // it is told once
    }
  }
}

TEST(CacheManagerEventsTest, ARestoredIndexIsStoredWithoutTokens) {
  const auto before = make();
  Request request("a", tokens_of(10));
  ASSERT_TRUE(before->allocate(request, 10));
  before->commit(request, 10);
  const auto after = make();
  after->start_events(kManyPages);
  after->restore(before->snapshot());
  const EventBatch batch = after->take_events();
  ASSERT_THAT(batch.events, SizeIs(4));  // two full pages, in two groups
  for (const PageEvent& event : batch.events) EXPECT_EQ(event.page_size, 0);
  Reader reader;
  reader.read(batch);
  EXPECT_TRUE(reader.keys() == keys_of(after->pool()));

  Request longer("b", tokens_of(13));
  ASSERT_TRUE(after->allocate(longer, 5, after->match(longer)));
  after->commit(longer, 13);
  const EventBatch next = after->take_events();
  ASSERT_THAT(next.events, SizeIs(2));
  EXPECT_EQ(next.events[0].parent, after->pool().digest(after->page_ids(longer, 0)[1]));
}

TEST(CacheManagerEventsTest, OfEqualPagesTheFirstAndTheLastCount) {
  const auto manager = make_full(6);
  manager->start_events(kManyPages);
  Request first("first", tokens_of(4));
  Request second("second", tokens_of(4));
  for (Request* request : {&first, &second}) ASSERT_TRUE(manager->allocate(*request, 4));
  for (Request* request : {&first, &second}) manager->commit(*request, 4);
  EXPECT_THAT(manager->take_events().events, SizeIs(1));
  manager->free(first);
  Request large("large", tokens_of(16, 1000));
  ASSERT_TRUE(manager->allocate(large, 16));  // takes all pages but that of `second`
  EXPECT_EQ(manager->stats().pool.num_evicted, 1);
  EXPECT_THAT(manager->take_events().events, SizeIs(0));
  manager->free(second);
  Request other("other", tokens_of(4, 5000));
  ASSERT_TRUE(manager->allocate(other, 4));
  const EventBatch batch = manager->take_events();
  ASSERT_THAT(batch.events, SizeIs(1));
  EXPECT_EQ(batch.events[0].kind, PageEventKind::kRemoved);
}

TEST(CacheManagerEventsTest, AreOffUntilTheyAreStarted) {
  const auto manager = make();
  const auto off = [](auto call) {
    EXPECT_THAT(call, ThrowsMessage<std::invalid_argument>(HasSubstr("events are off")));
  };
  off([&] { manager->take_events(); });
  off([&] { manager->stop_events(); });
  EXPECT_THROW(manager->start_events(0), std::invalid_argument);
  manager->start_events(1);
  EXPECT_THAT([&] { manager->start_events(1); },
              ThrowsMessage<std::invalid_argument>(HasSubstr("on already")));
  manager->start_residency(1, {1});
  EXPECT_THAT([&] { manager->start_residency(1, {1}); },
              ThrowsMessage<std::invalid_argument>(HasSubstr("sampled already")));
  manager->stop_events();
  EXPECT_NE(manager->pool().residency(), nullptr);
  off([&] { manager->take_events(); });
}

TEST(CacheManagerEventsTest, ResidencyIsMeasuredInTheCallersTime) {
  const auto manager = make_full(6);
  manager->start_residency(1, {5, 50});
  Request request("a", tokens_of(9));
  ASSERT_TRUE(manager->allocate(request, 9));
  manager->commit(request, 9);
  manager->free(request);
  manager->advance_time(10);
  Request again("b", tokens_of(6));
  ASSERT_EQ(manager->match(again), 4);
  ASSERT_TRUE(manager->allocate(again, 1, 4));
  manager->free(again);
  manager->advance_time(70);
  Request large("c", tokens_of(20, 1000));
  ASSERT_TRUE(manager->allocate(large, 20));
  const ResidencyStats& stats = manager->pool().residency()->stats();
  EXPECT_EQ(manager->stats().pool.num_evicted, 2);
  EXPECT_EQ(stats.reuse_gap.sum, 10);
  EXPECT_EQ(stats.lifetime.sum, 70 + 70);
  EXPECT_EQ(stats.idle.sum, 60 + 70);
}

TEST(CacheManagerEventsTest, TokensAskedForAndFoundAreCounted) {
  const auto manager = make();
  Request first("first", tokens_of(10));
  ASSERT_TRUE(manager->allocate(first, 10));
  manager->commit(first, 10);
  Request second("second", tokens_of(11));
  ASSERT_TRUE(manager->allocate(second, 2, manager->match(second)));
  ASSERT_TRUE(manager->allocate(second, 3));  // not its first pages
  Request refused("refused", tokens_of(48, 1000));
  ASSERT_FALSE(manager->allocate(refused, 48));
  const ManagerStats stats = manager->stats();
  EXPECT_EQ(stats.num_admitted, 2);
  EXPECT_EQ(stats.num_query_tokens, 21);
  EXPECT_EQ(stats.num_hit_tokens, 8);
  EXPECT_EQ(stats.num_failed_allocations, 1);

  const auto plain = make({.enable_caching = false});
  Request third("third", tokens_of(10));
  ASSERT_TRUE(plain->allocate(third, 10));
  EXPECT_EQ(plain->stats().num_admitted, 1);
  EXPECT_EQ(plain->stats().num_query_tokens, 0);
}

}  // namespace
}  // namespace pagedkv
