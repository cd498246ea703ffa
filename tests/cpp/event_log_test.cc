#include "pagedkv/watch/event_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "groups.h"
#include "hashes.h"

namespace pagedkv {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::IsEmpty;

constexpr std::size_t kMaxPages = 100;
const ExtraKeys kNoKeys;

std::vector<PageHash> hashes_of(std::uint64_t first, std::uint64_t count) {
  std::vector<PageHash> hashes;
  for (std::uint64_t i = 0; i < count; ++i) hashes.push_back(hash_of(first + i));
  return hashes;
}

RowSource row_of(std::span<const TokenId> tokens, std::span<const PageHash> hashes,
                 std::int32_t first_page = 0, std::int32_t page_size = kPageSize) {
  return {.tokens = tokens,
          .extra_keys = &kNoKeys,
          .hashes = hashes,
          .hash_page_size = kPageSize,
          .page_size = page_size,
          .first_page = first_page};
}

TEST(EventLogTest, PagesOfARowThatFollowEachOtherAreOneEvent) {
  EventLog log(kMaxPages);
  const auto tokens = tokens_of(5 * kPageSize);
  const auto hashes = hashes_of(0, 5);
  {
    const EventLog::Row row(log, row_of(tokens, hashes, 1));
    for (const std::size_t page : {1, 2, 4}) log.stored(hashes[page], 7, 3);
  }
  const EventBatch batch = log.take();
  ASSERT_EQ(batch.events.size(), 2);
  const PageEvent& first = batch.events[0];
  EXPECT_EQ(first.kind, PageEventKind::kStored);
  EXPECT_EQ(first.group, 7);
  EXPECT_EQ(first.shard, 3);
  EXPECT_EQ(first.page_size, kPageSize);
  EXPECT_EQ(first.first_page, 1);
  EXPECT_EQ(first.parent, hashes[0]);
  EXPECT_EQ(first.extra_keys, nullptr);
  EXPECT_THAT(batch.digests_of(first), ElementsAre(hashes[1], hashes[2]));
  EXPECT_THAT(batch.tokens_of(first),
              ElementsAreArray(std::span(tokens).subspan(kPageSize, 2 * kPageSize)));
  const PageEvent& second = batch.events[1];
  EXPECT_EQ(second.first_page, 4);
  EXPECT_EQ(second.parent, hashes[3]);
  EXPECT_THAT(batch.digests_of(second), ElementsAre(hashes[4]));
  EXPECT_THAT(batch.tokens_of(second), ElementsAreArray(std::span(tokens).last(kPageSize)));
  EXPECT_THAT(log.take().events, IsEmpty());
}

TEST(EventLogTest, AFirstPageHasNoParentAndRowsAreApart) {
  EventLog log(kMaxPages);
  const auto tokens = tokens_of(2 * kPageSize);
  const auto hashes = hashes_of(0, 2);
  const ExtraKeys salted(std::nullopt, {}, "salt");
  {
    RowSource source = row_of(tokens, hashes);
    source.extra_keys = &salted;
    const EventLog::Row row(log, source);
    log.stored(hashes[0], 0, 0);
  }
  {
    const EventLog::Row row(log, row_of(tokens, hashes, 1));
    log.stored(hashes[1], 0, 0);
  }
  const EventBatch batch = log.take();
  ASSERT_EQ(batch.events.size(), 2);
  EXPECT_EQ(batch.events[0].parent, std::nullopt);
  EXPECT_EQ(*batch.events[0].extra_keys, salted);
  EXPECT_EQ(batch.events[1].parent, hashes[0]);
  EXPECT_EQ(batch.events[1].extra_keys, nullptr);
}

TEST(EventLogTest, PagesOfARowInTwoShardsAreTwoEvents) {
  EventLog log(kMaxPages);
  const auto tokens = tokens_of(2 * kPageSize);
  const auto hashes = hashes_of(0, 2);
  const EventLog::Row row(log, row_of(tokens, hashes));
  log.stored(hashes[0], 0, 0);
  log.stored(hashes[1], 0, 1);
  const EventBatch batch = log.take();
  ASSERT_EQ(batch.events.size(), 2);
  EXPECT_EQ(batch.events[1].shard, 1);
  EXPECT_EQ(batch.events[1].parent, hashes[0]);
}

TEST(EventLogTest, LargerPagesHaveTheLastDigestOfEach) {
  EventLog log(kMaxPages);
  const auto tokens = tokens_of(6 * kPageSize);
  const auto hashes = hashes_of(0, 6);
  const EventLog::Row row(log, row_of(tokens, hashes, 0, 2 * kPageSize));
  for (const std::size_t last : {3, 5}) log.stored(hashes[last], 0, 0);
  const EventBatch batch = log.take();
  ASSERT_EQ(batch.events.size(), 1);
  EXPECT_EQ(batch.events[0].first_page, 1);
  EXPECT_EQ(batch.events[0].parent, hashes[1]);
  EXPECT_THAT(batch.tokens_of(batch.events[0]),
              ElementsAreArray(std::span(tokens).subspan(2 * kPageSize)));
}

TEST(EventLogTest, WithoutARowNobodyKnowsWhatIsInAPage) {
  EventLog log(kMaxPages);
  log.stored(hash_of(0), 0, 0);
  log.stored(hash_of(1), 0, 0);
  const EventBatch batch = log.take();
  ASSERT_EQ(batch.events.size(), 2);
  EXPECT_EQ(batch.events[1].page_size, 0);
  EXPECT_THAT(batch.digests_of(batch.events[1]), ElementsAre(hash_of(1)));
  EXPECT_THAT(batch.tokens_of(batch.events[1]), IsEmpty());
}

TEST(EventLogTest, APageThatIsNotOfTheRowHasNoTokens) {
  EventLog log(kMaxPages);
  const auto tokens = tokens_of(2 * kPageSize);
  const auto hashes = hashes_of(0, 2);
  const EventLog::Row row(log, row_of(tokens, hashes));
  log.stored(hash_of(9), 0, 0);
  log.stored(hashes[0], 0, 0);
  const EventBatch batch = log.take();
  ASSERT_EQ(batch.events.size(), 2);
  EXPECT_THAT(batch.tokens_of(batch.events[0]), IsEmpty());
  EXPECT_EQ(batch.tokens_of(batch.events[1]).size(), kPageSize);
}

TEST(EventLogTest, PagesRemovedFromOneGroupAndShardAreOneEvent) {
  EventLog log(kMaxPages);
  log.removed(hash_of(0), 0, 0);
  log.removed(hash_of(1), 0, 0);
  log.removed(hash_of(2), 1, 0);
  log.removed(hash_of(3), 1, 1);
  const EventBatch batch = log.take();
  ASSERT_EQ(batch.events.size(), 3);
  EXPECT_EQ(batch.events[0].kind, PageEventKind::kRemoved);
  EXPECT_THAT(batch.digests_of(batch.events[0]), ElementsAre(hash_of(0), hash_of(1)));
  EXPECT_EQ(batch.events[1].group, 1);
  EXPECT_EQ(batch.events[2].shard, 1);
}

TEST(EventLogTest, WhatIsRemovedBetweenTwoPagesOfARowSeparatesThem) {
  EventLog log(kMaxPages);
  const auto tokens = tokens_of(2 * kPageSize);
  const auto hashes = hashes_of(0, 2);
  const EventLog::Row row(log, row_of(tokens, hashes));
  log.stored(hashes[0], 0, 0);
  log.removed(hash_of(9), 0, 0);
  log.stored(hashes[1], 0, 0);
  EXPECT_EQ(log.take().events.size(), 3);
}

TEST(EventLogTest, ClearedIsAllThatMatters) {
  EventLog log(kMaxPages);
  log.removed(hash_of(0), 0, 0);
  log.cleared();
  log.stored(hash_of(1), 0, 0);
  const EventBatch batch = log.take();
  ASSERT_EQ(batch.events.size(), 2);
  EXPECT_EQ(batch.events[0].kind, PageEventKind::kCleared);
  EXPECT_EQ(batch.events[0].shard, kAnyShard);
  EXPECT_EQ(batch.digests_of(batch.events[1])[0], hash_of(1));
}

TEST(EventLogTest, ForgetsAllWhenThereIsTooMuch) {
  EventLog log(2);
  log.removed(hash_of(0), 0, 0);
  log.removed(hash_of(1), 0, 0);
  EXPECT_FALSE(log.is_lost());
  log.removed(hash_of(2), 0, 0);
  log.removed(hash_of(3), 0, 0);
  EXPECT_TRUE(log.is_lost());
  EXPECT_THAT(log.take().events, IsEmpty());
  EXPECT_FALSE(log.is_lost());
  for (int i = 0; i < 3; ++i) log.removed(hash_of(0), 0, 0);
  EXPECT_TRUE(log.is_lost());
  log.cleared();  // which says all there is to say
  EXPECT_FALSE(log.is_lost());
}

}  // namespace
}  // namespace pagedkv
