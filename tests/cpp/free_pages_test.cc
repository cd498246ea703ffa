#include "pagedkv/pool/free_pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "random.h"

namespace pagedkv {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<PageId> drain(FreePages& free, ShardId shard = kAnyShard) {
  std::vector<PageId> pages;
  for (PageId page; (page = free.pop_front(shard)) != kNoPage;) pages.push_back(page);
  return pages;
}

TEST(FreePagesTest, StartsEmptyWithOneShard) {
  std::vector<Page> pages(4);
  FreePages free(pages);
  EXPECT_EQ(free.shards().size(), 1);
  EXPECT_EQ(free.size(), 0);
  EXPECT_EQ(free.pop_front(), kNoPage);
  EXPECT_EQ(free.pop_front(0), kNoPage);
  EXPECT_THAT(free.in_order(), IsEmpty());
  free.check_invariants();
}

TEST(FreePagesTest, PopsTheColdestOfAllShards) {
  std::vector<Page> pages(6);
  FreePages free(pages);
  free.set_shards(PageShards(6, 3));
  for (const PageId page : {5, 0, 2, 4}) free.push_back(page);
  EXPECT_THAT(free.in_order(), ElementsAre(5, 0, 2, 4));
  EXPECT_THAT(drain(free), ElementsAre(5, 0, 2, 4));
}

TEST(FreePagesTest, PopsTheColdestOfOneShard) {
  std::vector<Page> pages(6);
  FreePages free(pages);
  free.set_shards(PageShards(6, 2));
  for (const PageId page : {5, 0, 2, 4}) free.push_back(page);
  EXPECT_EQ(free.size(0), 2);
  EXPECT_EQ(free.size(1), 2);
  EXPECT_THAT(drain(free, 1), ElementsAre(5, 4));
  EXPECT_EQ(free.size(), 2);
  EXPECT_EQ(free.pop_front(1), kNoPage) << "shard 0 has pages, which do not count";
  EXPECT_THAT(drain(free), ElementsAre(0, 2));
}

TEST(FreePagesTest, KeepsTheOrderWhenDealtOutAnew) {
  std::vector<Page> pages(12);
  FreePages free(pages);
  const std::vector<PageId> order = {7, 3, 11, 0, 5, 6, 2};
  for (const PageId page : order) free.push_back(page);
  for (const std::int32_t count : {3, 12, 4, 1, 2, 6}) {
    free.set_shards(PageShards(12, count));
    free.check_invariants();
    EXPECT_EQ(free.in_order(), order) << count << " shards";
  }
  free.push_back(1);
  EXPECT_THAT(drain(free), ElementsAre(7, 3, 11, 0, 5, 6, 2, 1));
}

TEST(FreePagesTest, StampsAPageAnewWhenItComesBack) {
  std::vector<Page> pages(4);
  FreePages free(pages);
  free.set_shards(PageShards(4, 2));
  for (const PageId page : {0, 2, 3}) free.push_back(page);
  free.remove(0);
  free.push_back(0);
  EXPECT_THAT(drain(free), ElementsAre(2, 3, 0));
}

TEST(FreePagesTest, NamesAPageInTheQueueOfAnotherShard) {
  std::vector<Page> pages(4);
  FreePages free(pages);
  free.set_shards(PageShards(4, 2));
  free.push_back(0);
  free.push_back(1);
  free.push_back(3);
  pages[0].next_step = 2;
  pages[3].prev_step = -2;
  EXPECT_THROW(free.check_invariants(), std::logic_error);
}

TEST(FreePagesTest, NamesAStaleStamp) {
  std::vector<Page> pages(3);
  FreePages free(pages);
  for (PageId page = 0; page < 3; ++page) free.push_back(page);
  pages[1].set_freed_at(7);
  EXPECT_THROW(free.check_invariants(), std::logic_error);
}

// The golden model is one list of all free pages, coldest first.
TEST(FreePagesTest, MatchesAListUnderRandomOperations) {
  constexpr PageId kPages = 24;
  constexpr std::int32_t kCounts[] = {1, 2, 3, 4, 6, 24};
  for (unsigned seed = 0; seed < 50; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    std::vector<Page> pages(kPages);
    FreePages free(pages);
    PageShards shards(kPages);
    std::vector<PageId> golden;
    for (int step = 0; step < 400; ++step) {
      const PageId page = random.below(kPages);
      const ShardId shard = random.below(shards.size() + 1) - 1;
      const auto is_of_shard = [&](PageId p) { return shards.pages_of(shard).contains(p); };
      switch (random.below(8)) {
        case 0: {
          const std::int32_t count = kCounts[random.below(std::size(kCounts))];
          shards = PageShards(kPages, count);
          free.set_shards(shards);
          break;
        }
        case 1:
        case 2: {
          const auto coldest = std::ranges::find_if(golden, is_of_shard);
          ASSERT_EQ(free.pop_front(shard), coldest == golden.end() ? kNoPage : *coldest);
          if (coldest != golden.end()) golden.erase(coldest);
          break;
        }
        case 3:
          if (free.contains(page)) {
            free.remove(page);
            std::erase(golden, page);
          }
          break;
        default:
          if (!free.contains(page)) {
            free.push_back(page);
            golden.push_back(page);
          }
      }
      ASSERT_NO_THROW(free.check_invariants());
      ASSERT_EQ(free.in_order(), golden);
      for (ShardId s = kAnyShard; s < shards.size(); ++s) {
        ASSERT_EQ(free.size(s), std::ranges::count_if(golden, [&](PageId p) {
                    return shards.pages_of(s).contains(p);
                  }));
      }
      for (PageId p = 0; p < kPages; ++p) {
        ASSERT_EQ(free.contains(p), std::ranges::count(golden, p) == 1);
      }
    }
    EXPECT_EQ(drain(free), golden);
  }
}

}  // namespace
}  // namespace pagedkv
