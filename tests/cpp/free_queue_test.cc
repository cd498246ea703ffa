#include "pagedkv/pool/free_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <numeric>
#include <random>
#include <vector>

#include "pagedkv/pool/large_array.h"
#include "random.h"

namespace pagedkv {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;

std::vector<PageId> drain(FreeQueue& queue) {
  std::vector<PageId> pages;
  for (PageId page; (page = queue.pop_front()) != kNoPage;) pages.push_back(page);
  return pages;
}

TEST(FreeQueueTest, StartsEmpty) {
  std::vector<Page> pages(3);
  FreeQueue queue(pages);
  EXPECT_EQ(queue.size(), 0);
  EXPECT_EQ(queue.front(), kNoPage);
  EXPECT_EQ(queue.pop_front(), kNoPage);
  EXPECT_FALSE(queue.contains(2));
  queue.check_invariants();
}

TEST(FreeQueueTest, PopsColdestFirst) {
  std::vector<Page> pages(4);
  FreeQueue queue(pages);
  queue.push_back(2);
  queue.push_back(0);
  queue.push_front(3);
  EXPECT_EQ(queue.front(), 3);
  EXPECT_THAT(drain(queue), ElementsAre(3, 2, 0));
}

TEST(FreeQueueTest, RemovesFromFrontMiddleAndBack) {
  std::vector<Page> pages(5);
  FreeQueue queue(pages);
  for (PageId page = 0; page < 5; ++page) queue.push_back(page);
  for (PageId page : {0, 2, 4}) {
    queue.remove(page);
    EXPECT_FALSE(queue.contains(page));
    queue.check_invariants();
  }
  EXPECT_THAT(drain(queue), ElementsAre(1, 3));
}

// What `pop_front` fetches from memory. Only speed depends on it.
TEST(FreeQueueTest, PagesNameTheEighthAfterThem) {
  std::vector<Page> pages(40);
  std::vector<PageId> order(pages.size());
  std::iota(order.begin(), order.end(), 0);
  std::mt19937 random(1);
  std::ranges::shuffle(order, random);
  FreeQueue queue(pages);
  for (const PageId page : order) queue.push_back(page);
  for (std::size_t i = 0; i + 8 < order.size(); ++i) {
    EXPECT_EQ(pages[static_cast<std::size_t>(order[i])].ahead, order[i + 8]);
  }
}

TEST(FreeQueueTest, TakesAPageBackAfterItLeft) {
  std::vector<Page> pages(1);
  FreeQueue queue(pages);
  queue.push_back(0);
  queue.remove(0);
  queue.push_front(0);
  EXPECT_EQ(queue.size(), 1);
  queue.check_invariants();
}

TEST(FreeQueueTest, ZeroedMemoryIsARowOfPages) {
  for (const PageRange range : {PageRange{1, 6}, PageRange{0, 1}, PageRange{3, 3}}) {
    LargeArray<Page> pages(6);
    FreeQueue queue(pages);
    queue.add_unused(range);
    queue.check_invariants();
    std::vector<PageId> expected;
    for (PageId page = range.begin; page < range.end; ++page) expected.push_back(page);
    EXPECT_EQ(queue.size(), range.end - range.begin);
    EXPECT_THAT(drain(queue), ElementsAreArray(expected));
  }
}

TEST(FreeQueueTest, TakesUnusedPagesFromAnywhere) {
  LargeArray<Page> pages(9);
  FreeQueue queue(pages);
  queue.add_unused({1, 9});
  for (const PageId page : {4, 1, 8}) {
    queue.remove(page);
    queue.check_invariants();
  }
  queue.push_back(4);
  queue.push_front(8);
  queue.check_invariants();
  EXPECT_THAT(drain(queue), ElementsAre(8, 2, 3, 5, 6, 7, 4));
}

TEST(FreeQueueTest, NamesABrokenLink) {
  std::vector<Page> pages(3);
  FreeQueue queue(pages);
  for (PageId page = 0; page < 3; ++page) queue.push_back(page);
  pages[1].prev_step = 2;
  EXPECT_THROW(queue.check_invariants(), std::logic_error);
}

TEST(FreeQueueTest, MatchesDequeUnderRandomOperations) {
  constexpr PageId kPages = 16;
  for (unsigned seed = 0; seed < 50; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    std::vector<Page> pages(kPages);
    FreeQueue queue(pages);
    std::deque<PageId> golden;
    for (int step = 0; step < 300; ++step) {
      const PageId page = random.below(kPages);
      if (queue.contains(page)) {
        queue.remove(page);
        golden.erase(std::find(golden.begin(), golden.end(), page));
      } else if (random.below(2) == 0) {
        queue.push_back(page);
        golden.push_back(page);
      } else {
        queue.push_front(page);
        golden.push_front(page);
      }
      ASSERT_NO_THROW(queue.check_invariants());
      ASSERT_EQ(queue.size(), static_cast<PageId>(golden.size()));
    }
    EXPECT_THAT(drain(queue), ElementsAreArray(golden));
  }
}

}  // namespace
}  // namespace pagedkv
