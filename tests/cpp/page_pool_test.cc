#include "pagedkv/pool/page_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "hashes.h"
#include "random.h"

namespace pagedkv {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::vector<PageId> allocate(PagePool& pool, std::size_t count) {
  std::vector<PageId> pages(count, kNoPage);
  EXPECT_TRUE(pool.allocate(pages));
  return pages;
}

void free(PagePool& pool, std::vector<PageId> pages) { pool.free(pages); }
void hold(PagePool& pool, std::vector<PageId> pages) { pool.hold(pages); }

TEST(PagePoolTest, NeedsTheNullPage) {
  EXPECT_THROW(PagePool(0), std::invalid_argument);
  EXPECT_THROW(PagePool(-1), std::invalid_argument);
  PagePool pool(1);
  EXPECT_EQ(pool.num_free_pages(), 0);
  std::vector<PageId> none;
  EXPECT_TRUE(pool.allocate(none));
  pool.check_invariants();
}

TEST(PagePoolTest, AllocatesInAscendingOrderAndNeverTheNullPage) {
  PagePool pool(5);
  EXPECT_THAT(allocate(pool, 4), ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(pool.num_free_pages(), 0);
}

TEST(PagePoolTest, AllocatesAllOrNothing) {
  PagePool pool(4);
  std::vector<PageId> pages(4, kNoPage);
  EXPECT_FALSE(pool.allocate(pages));
  EXPECT_THAT(pages, testing::Each(kNoPage));
  EXPECT_EQ(pool.num_free_pages(), 3);
}

TEST(PagePoolTest, ReusesTheFirstFreedFirst) {
  PagePool pool(4);
  allocate(pool, 3);
  free(pool, {3, 1});
  free(pool, {2});
  EXPECT_THAT(allocate(pool, 3), ElementsAre(3, 1, 2));
}

TEST(PagePoolTest, KeepsAPageUntilItsLastHolderFreesIt) {
  PagePool pool(2);
  allocate(pool, 1);
  hold(pool, {1});
  free(pool, {1});
  EXPECT_EQ(pool.ref_count(1), 1);
  EXPECT_EQ(pool.num_free_pages(), 0);
  free(pool, {1});
  EXPECT_EQ(pool.num_free_pages(), 1);
}

TEST(PagePoolTest, FreedPageKeepsItsContentUntilHandedOut) {
  PagePool pool(3);
  allocate(pool, 1);
  pool.cache(1, hash_of(7), 0);
  free(pool, {1});
  EXPECT_EQ(pool.find(hash_of(7), 0), 1);
  EXPECT_THAT(allocate(pool, 1), ElementsAre(2));
  EXPECT_EQ(pool.find(hash_of(7), 0), 1) << "page 2 was colder";
  EXPECT_THAT(allocate(pool, 1), ElementsAre(1));
  EXPECT_EQ(pool.find(hash_of(7), 0), kNoPage);
  EXPECT_EQ(pool.num_evictions(), 1);
}

TEST(PagePoolTest, HoldingAFreePageSavesItFromEviction) {
  PagePool pool(3);
  allocate(pool, 2);
  pool.cache(1, hash_of(7), 0);
  free(pool, {1, 2});
  hold(pool, {1});
  EXPECT_THAT(allocate(pool, 1), ElementsAre(2));
  EXPECT_EQ(pool.find(hash_of(7), 0), 1);
  pool.check_invariants();
}

TEST(PagePoolTest, RefusesToFreeTwice) {
  PagePool pool(8);
  allocate(pool, 2);
  free(pool, {2});
  EXPECT_THAT([&] { free(pool, {2}); }, ThrowsMessage<std::invalid_argument>(
                                            HasSubstr("[PagePool.free] page 2 is not allocated")));
  EXPECT_THAT([&] { free(pool, {7}); }, ThrowsMessage<std::invalid_argument>(HasSubstr("page 7")));
  EXPECT_THAT([&] { free(pool, {1, 1}); },
              ThrowsMessage<std::invalid_argument>(HasSubstr("that many times")));
  EXPECT_EQ(pool.ref_count(1), 1) << "a refused call changes nothing";
  pool.check_invariants();
}

TEST(PagePoolTest, FreesAPageGivenTwiceIfHeldTwice) {
  PagePool pool(3);
  allocate(pool, 2);
  hold(pool, {1});
  free(pool, {1, 2, 1});
  EXPECT_EQ(pool.num_free_pages(), 2);
  pool.check_invariants();
}

TEST(PagePoolTest, RefusesForeignPages) {
  PagePool pool(3);
  allocate(pool, 1);
  for (PageId page : {-1, 0, 3, 1 << 30}) {
    EXPECT_THROW(free(pool, {1, page}), std::out_of_range);
    EXPECT_THROW(hold(pool, {1, page}), std::out_of_range);
    EXPECT_THROW(pool.cache(page, hash_of(1), 0), std::out_of_range);
  }
  EXPECT_THROW(pool.ref_count(3), std::out_of_range);
  EXPECT_THROW(pool.is_cached(-1), std::out_of_range);
  EXPECT_EQ(pool.ref_count(1), 1);
  EXPECT_EQ(pool.ref_count(kNullPage), 0);
}

TEST(PagePoolTest, CachesOnlyHeldPagesOnce) {
  PagePool pool(3);
  EXPECT_THROW(pool.cache(1, hash_of(1), 0), std::invalid_argument);
  allocate(pool, 1);
  EXPECT_THROW(pool.cache(1, hash_of(1), -1), std::invalid_argument);
  pool.cache(1, hash_of(1), 0);
  EXPECT_THROW(pool.cache(1, hash_of(2), 0), std::invalid_argument);
  EXPECT_EQ(pool.find(hash_of(1), 0), 1);
}

TEST(PagePoolTest, ResetsOnlyWhenNobodyHoldsAPage) {
  PagePool pool(3);
  allocate(pool, 1);
  pool.cache(1, hash_of(1), 0);
  EXPECT_FALSE(pool.reset_prefix_cache());
  EXPECT_EQ(pool.num_cached_pages(), 1);
  free(pool, {1});
  EXPECT_TRUE(pool.reset_prefix_cache());
  EXPECT_EQ(pool.find(hash_of(1), 0), kNoPage);
  pool.check_invariants();
}

TEST(PagePoolTest, AllocatesFromOneShard) {
  PagePool pool(12);
  pool.set_num_shards(3);
  std::vector<PageId> pages(2, kNoPage);
  ASSERT_TRUE(pool.allocate(pages, 2));
  EXPECT_THAT(pages, ElementsAre(8, 9));
  EXPECT_THAT(allocate(pool, 4), ElementsAre(1, 2, 3, 4)) << "any shard: the coldest of all";
  EXPECT_EQ(pool.num_free_pages(0), 0);
  EXPECT_EQ(pool.num_free_pages(1), 3);
  EXPECT_EQ(pool.num_free_pages(2), 2);
  EXPECT_EQ(pool.num_free_pages(kAnyShard), 5);
  pages.assign(3, kNoPage);
  EXPECT_FALSE(pool.allocate(pages, 2)) << "5 pages are free, 2 of them there";
  EXPECT_THAT(pages, testing::Each(kNoPage));
  EXPECT_EQ(pool.num_free_pages(), 5);
  pool.check_invariants();
}

TEST(PagePoolTest, FindsInOneShard) {
  PagePool pool(12);
  pool.set_num_shards(3);
  allocate(pool, 11);
  for (const PageId page : {9, 5, 6}) pool.cache(page, hash_of(1), 0);
  EXPECT_EQ(pool.find(hash_of(1), 0), 9);
  EXPECT_EQ(pool.find(hash_of(1), 0, 0), kNoPage);
  EXPECT_EQ(pool.find(hash_of(1), 0, 1), 5);
  EXPECT_EQ(pool.find(hash_of(1), 0, 2), 9);
  pool.set_num_shards(1);
  EXPECT_EQ(pool.find(hash_of(1), 0, 0), 9);
}

TEST(PagePoolTest, KeepsEverythingWhenDealtOutAnew) {
  PagePool pool(12);
  allocate(pool, 5);
  pool.cache(2, hash_of(1), 0);
  free(pool, {4, 2});
  const std::vector<PageId> order = pool.free_pages();
  EXPECT_THAT(order, ElementsAre(6, 7, 8, 9, 10, 11, 4, 2));
  for (const std::int32_t count : {2, 6, 12, 1, 4}) {
    pool.set_num_shards(count);
    EXPECT_EQ(pool.shards().size(), count);
    EXPECT_EQ(pool.free_pages(), order);
    EXPECT_EQ(pool.find(hash_of(1), 0), 2);
    EXPECT_EQ(pool.ref_count(3), 1);
    pool.check_invariants();
  }
  EXPECT_EQ(allocate(pool, 8), order);
}

TEST(PagePoolTest, RefusesForeignShards) {
  PagePool pool(12);
  pool.set_num_shards(3);
  std::vector<PageId> pages(1, kNoPage);
  for (const ShardId shard : {3, -2, 2'147'483'647}) {
    EXPECT_THROW((void)pool.allocate(pages, shard), std::out_of_range);
    EXPECT_THROW(pool.num_free_pages(shard), std::out_of_range);
  }
  for (const std::int32_t count : {0, -1, 5, 24}) {
    EXPECT_THROW(pool.set_num_shards(count), std::invalid_argument);
  }
  EXPECT_EQ(pool.shards().size(), 3);
  EXPECT_EQ(pool.num_free_pages(), 11);
}

TEST(PagePoolTest, TellsTheDigestOfCachedPagesOnly) {
  PagePool pool(4);
  allocate(pool, 1);
  EXPECT_THROW(pool.digest(1), std::invalid_argument);
  EXPECT_EQ(pool.group(1), kNoGroup);
  EXPECT_EQ(pool.group(kNullPage), kNoGroup);
  pool.cache(1, hash_of(1), 3);
  EXPECT_EQ(pool.digest(1), hash_of(1));
  EXPECT_EQ(pool.group(1), 3);
  for (const PageId page : {4, -1}) {
    EXPECT_THROW(pool.digest(page), std::out_of_range);
    EXPECT_THROW(pool.group(page), std::out_of_range);
  }
}

/// The same pool on std containers: a list for the LRU order, a map from content to pages.
class GoldenPool {
 public:
  explicit GoldenPool(PageId num_pages) : ref_(static_cast<std::size_t>(num_pages)) {
    for (PageId page = 1; page < num_pages; ++page) free_.push_back(page);
  }

  std::vector<PageId> allocate(std::size_t count) {
    std::vector<PageId> pages;
    if (count > free_.size()) return pages;
    for (; count > 0; --count) {
      const PageId page = free_.front();
      free_.pop_front();
      forget(page);
      ref(page) = 1;
      pages.push_back(page);
    }
    return pages;
  }

  void hold(PageId page) {
    if (ref(page)++ == 0) free_.remove(page);
  }

  void free(PageId page) {
    if (--ref(page) == 0) free_.push_back(page);
  }

  void cache(PageId page, unsigned content) { content_.emplace_back(content, page); }

  PageId find(unsigned content) const {
    for (const auto& [key, page] : content_) {
      if (key == content) return page;
    }
    return kNoPage;
  }

  bool is_cached(PageId page) const {
    return std::ranges::any_of(content_, [&](const auto& entry) { return entry.second == page; });
  }

  std::int32_t& ref(PageId page) { return ref_[static_cast<std::size_t>(page)]; }
  std::size_t num_free() const { return free_.size(); }

 private:
  void forget(PageId page) {
    std::erase_if(content_, [&](const auto& entry) { return entry.second == page; });
  }

  std::list<PageId> free_;
  std::vector<std::int32_t> ref_;
  std::vector<std::pair<unsigned, PageId>> content_;  // oldest first
};

TEST(PagePoolTest, MatchesGoldenPoolUnderRandomOperations) {
  constexpr PageId kPages = 24;
  constexpr unsigned kContents = 20;
  for (unsigned seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    PagePool pool(kPages);
    GoldenPool golden(kPages);
    for (int step = 0; step < 500; ++step) {
      const PageId page = 1 + random.below(kPages - 1);
      switch (random.below(4)) {
        case 0: {
          std::vector<PageId> pages(random.below(std::size_t{5}), kNoPage);
          const auto expected = golden.allocate(pages.size());
          ASSERT_EQ(pool.allocate(pages), expected.size() == pages.size());
          if (expected.size() == pages.size()) {
            ASSERT_EQ(pages, expected);
          }
          break;
        }
        case 1:
          pool.hold(std::span(&page, 1));
          golden.hold(page);
          break;
        case 2:
          if (golden.ref(page) == 0) {
            ASSERT_THROW(pool.free(std::span(&page, 1)), std::invalid_argument);
          } else {
            pool.free(std::span(&page, 1));
            golden.free(page);
          }
          break;
        default:
          if (golden.ref(page) > 0 && !golden.is_cached(page)) {
            const unsigned content = random.below(kContents);
            pool.cache(page, hash_of(content), 0);
            golden.cache(page, content);
          }
      }
      ASSERT_NO_THROW(pool.check_invariants());
      ASSERT_EQ(pool.num_free_pages(), static_cast<PageId>(golden.num_free()));
      for (PageId p = 1; p < kPages; ++p) {
        ASSERT_EQ(pool.ref_count(p), golden.ref(p));
        ASSERT_EQ(pool.is_cached(p), golden.is_cached(p));
      }
      for (unsigned content = 0; content < kContents; ++content) {
        ASSERT_EQ(pool.find(hash_of(content), 0), golden.find(content));
      }
    }
  }
}

}  // namespace
}  // namespace pagedkv
