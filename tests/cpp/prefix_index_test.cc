#include "pagedkv/pool/prefix_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "hashes.h"
#include "random.h"

namespace pagedkv {
namespace {

TEST(PrefixIndexTest, StartsEmpty) {
  std::vector<Page> pages(4);
  PrefixIndex index(pages);
  EXPECT_EQ(index.num_keys(), 0);
  EXPECT_EQ(index.find(hash_of(1), 0), kNoPage);
  index.check_invariants();
}

TEST(PrefixIndexTest, WorksWithOnlyTheNullPage) {
  std::vector<Page> pages(1);
  PrefixIndex index(pages);
  EXPECT_EQ(index.find(hash_of(1), 0), kNoPage);
  index.clear();
  index.check_invariants();
}

TEST(PrefixIndexTest, FindsWhatWasInserted) {
  std::vector<Page> pages(4);
  PrefixIndex index(pages);
  index.insert(2, hash_of(1), 0);
  EXPECT_EQ(index.find(hash_of(1), 0), 2);
  EXPECT_EQ(index.find(hash_of(2), 0), kNoPage);
  EXPECT_TRUE(pages[2].is_cached());
}

TEST(PrefixIndexTest, KeepsGroupsApart) {
  std::vector<Page> pages(4);
  PrefixIndex index(pages);
  index.insert(1, hash_of(1), 0);
  index.insert(2, hash_of(1), 1);
  EXPECT_EQ(index.find(hash_of(1), 0), 1);
  EXPECT_EQ(index.find(hash_of(1), 1), 2);
  EXPECT_EQ(index.find(hash_of(1), 2), kNoPage);
  EXPECT_EQ(index.num_keys(), 2);
}

TEST(PrefixIndexTest, FindsTheOldestDuplicate) {
  std::vector<Page> pages(5);
  PrefixIndex index(pages);
  for (PageId page : {3, 1, 4}) index.insert(page, hash_of(1), 0);
  EXPECT_EQ(index.num_keys(), 1);
  EXPECT_EQ(index.num_pages(), 3);
  EXPECT_EQ(index.find(hash_of(1), 0), 3);
  index.remove(1);
  EXPECT_EQ(index.find(hash_of(1), 0), 3);
  index.remove(3);
  EXPECT_EQ(index.find(hash_of(1), 0), 4);
  index.remove(4);
  EXPECT_EQ(index.find(hash_of(1), 0), kNoPage);
  index.check_invariants();
}

TEST(PrefixIndexTest, FindsTheOldestDuplicateInARange) {
  std::vector<Page> pages(9);
  PrefixIndex index(pages);
  for (PageId page : {7, 2, 5, 3, 8}) index.insert(page, hash_of(1), 0);
  index.insert(4, hash_of(1), 1);
  EXPECT_EQ(index.find(hash_of(1), 0, {0, 9}), 7);
  EXPECT_EQ(index.find(hash_of(1), 0, {0, 3}), 2);
  EXPECT_EQ(index.find(hash_of(1), 0, {3, 6}), 5) << "3 is younger";
  EXPECT_EQ(index.find(hash_of(1), 0, {8, 9}), 8);
  EXPECT_EQ(index.find(hash_of(1), 0, {4, 5}), kNoPage) << "4 is of another group";
  EXPECT_EQ(index.find(hash_of(1), 0, {0, 0}), kNoPage);
  EXPECT_EQ(index.find(hash_of(2), 0, {0, 9}), kNoPage);
  index.remove(5);
  EXPECT_EQ(index.find(hash_of(1), 0, {3, 6}), 3);
  index.remove(7);
  EXPECT_EQ(index.find(hash_of(1), 0, {6, 9}), 8);
}

TEST(PrefixIndexTest, ClosesTheHoleInARunOfCollisions) {
  constexpr PageId kPages = 40;
  std::vector<Page> pages(kPages);
  PrefixIndex index(pages);
  for (PageId page = 1; page < kPages; ++page) {
    index.insert(page, colliding_hash_of(static_cast<std::uint8_t>(page)), 0);
  }
  for (PageId gone = 2; gone < kPages; gone += 3) {
    index.remove(gone);
    index.check_invariants();
  }
  for (PageId page = 1; page < kPages; ++page) {
    EXPECT_EQ(index.find(colliding_hash_of(static_cast<std::uint8_t>(page)), 0),
              page % 3 == 2 ? kNoPage : page);
  }
}

TEST(PrefixIndexTest, ForgetsEverythingOnClear) {
  std::vector<Page> pages(4);
  PrefixIndex index(pages);
  index.insert(1, hash_of(1), 0);
  index.insert(2, hash_of(1), 0);
  index.clear();
  EXPECT_EQ(index.num_pages(), 0);
  EXPECT_EQ(index.find(hash_of(1), 0), kNoPage);
  EXPECT_FALSE(pages[1].is_cached());
  index.check_invariants();
  index.insert(2, hash_of(1), 0);
  EXPECT_EQ(index.find(hash_of(1), 0), 2);
}

TEST(PrefixIndexTest, NamesABrokenRing) {
  std::vector<Page> pages(4);
  PrefixIndex index(pages);
  index.insert(1, hash_of(1), 0);
  index.insert(2, hash_of(1), 0);
  pages[2].duplicate_prev = 3;
  EXPECT_THROW(index.check_invariants(), std::logic_error);
}

// Keys come from a small set half of which collides, in a table that fills up completely.
TEST(PrefixIndexTest, MatchesMapUnderRandomOperations) {
  constexpr PageId kPages = 48;
  for (unsigned seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    std::vector<Page> pages(kPages);
    PrefixIndex index(pages);
    std::map<std::pair<unsigned, GroupId>, std::deque<PageId>> golden;
    std::map<PageId, std::pair<unsigned, GroupId>> key_of;
    const auto hash = [](unsigned key) {
      return key % 2 == 0 ? hash_of(key) : colliding_hash_of(static_cast<std::uint8_t>(key));
    };
    for (int step = 0; step < 600; ++step) {
      const PageId page = 1 + random.below(kPages - 1);
      if (const auto found = key_of.find(page); found != key_of.end()) {
        auto& ring = golden[found->second];
        ring.erase(std::find(ring.begin(), ring.end(), page));
        if (ring.empty()) golden.erase(found->second);
        key_of.erase(found);
        index.remove(page);
      } else {
        const std::pair key(random.below(30U), random.below(2));
        golden[key].push_back(page);
        key_of[page] = key;
        index.insert(page, hash(key.first), key.second);
      }
      ASSERT_NO_THROW(index.check_invariants());
      ASSERT_EQ(index.num_keys(), static_cast<PageId>(golden.size()));
      for (unsigned key = 0; key < 30; ++key) {
        for (GroupId group = 0; group < 2; ++group) {
          const auto found = golden.find({key, group});
          ASSERT_EQ(index.find(hash(key), group),
                    found == golden.end() ? kNoPage : found->second.front());
          const PageRange range = {random.below(kPages), kPages - random.below(kPages)};
          PageId oldest = kNoPage;
          if (found != golden.end()) {
            const auto in_range = std::ranges::find_if(
                found->second, [&](PageId p) { return p >= range.begin && p < range.end; });
            if (in_range != found->second.end()) oldest = *in_range;
          }
          ASSERT_EQ(index.find(hash(key), group, range), oldest);
        }
      }
    }
  }
}

}  // namespace
}  // namespace pagedkv
