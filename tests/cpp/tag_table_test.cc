#include "pagedkv/pool/tag_table.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <stdexcept>

namespace pagedkv {
namespace {

// High bits choose the bucket, low ones are the tag.
constexpr std::uint64_t key_of(std::uint32_t bucket_bits, std::uint16_t tag) {
  return std::uint64_t{bucket_bits} << 32 | tag;
}

PageId find_page(const TagTable& table, std::uint64_t key, PageId page) {
  return table.find(key, [page](PageId candidate) { return candidate == page; });
}

TEST(TagTableTest, StartsEmpty) {
  const TagTable table(100);
  EXPECT_EQ(table.find(0, [](PageId) { return true; }), kNoPage);
  EXPECT_EQ(table.find(~std::uint64_t{0}, [](PageId) { return true; }), kNoPage);
  table.for_each([](PageId page) { ADD_FAILURE() << page; });
}

TEST(TagTableTest, FindsPagesOfOneKeyByWhatIsWanted) {
  TagTable table(100);
  table.insert(key_of(7, 3), 11);
  table.insert(key_of(7, 3), 12);
  EXPECT_EQ(find_page(table, key_of(7, 3), 11), 11);
  EXPECT_EQ(find_page(table, key_of(7, 3), 12), 12);
  EXPECT_EQ(find_page(table, key_of(7, 4), 12), kNoPage);
  table.erase(key_of(7, 3), 11);
  EXPECT_EQ(find_page(table, key_of(7, 3), 11), kNoPage);
  EXPECT_EQ(find_page(table, key_of(7, 3), 12), 12);
}

TEST(TagTableTest, TakesKeysWhoseTagIsZero) {
  TagTable table(100);
  table.insert(key_of(0, 0), 5);
  EXPECT_EQ(find_page(table, key_of(0, 0), 5), 5);
  table.erase(key_of(0, 0), 5);
  EXPECT_EQ(table.find(key_of(0, 0), [](PageId) { return true; }), kNoPage);
}

TEST(TagTableTest, FillsWhateverTheBuckets) {
  for (const std::size_t num_pages : {1U, 9U, 10U, 17U, 18U, 200U}) {
    for (const std::uint32_t bucket_bits : {0U, 0xffffffffU}) {
      TagTable table(num_pages);
      for (std::size_t i = 1; i <= num_pages; ++i) {
        table.insert(key_of(bucket_bits, 9), static_cast<PageId>(i));
      }
      for (std::size_t i = 1; i <= num_pages; ++i) {
        const auto page = static_cast<PageId>(i);
        EXPECT_EQ(find_page(table, key_of(bucket_bits, 9), page), page);
      }
      table.check_invariants([&](PageId) { return key_of(bucket_bits, 9); });
    }
  }
}

TEST(TagTableTest, PutsAnotherPageInThePlace) {
  TagTable table(100);
  table.insert(key_of(1, 2), 3);
  table.replace(key_of(1, 2), 3, 4);
  EXPECT_EQ(find_page(table, key_of(1, 2), 3), kNoPage);
  EXPECT_EQ(find_page(table, key_of(1, 2), 4), 4);
  table.replace(key_of(1, 2), 3, 5);  // is not there any more
  EXPECT_EQ(find_page(table, key_of(1, 2), 4), 4);
  EXPECT_EQ(find_page(table, key_of(1, 2), 5), kNoPage);
}

TEST(TagTableTest, NamesAPageThatIsNotUnderItsKey) {
  TagTable table(100);
  table.insert(key_of(1, 2), 3);
  EXPECT_THROW(table.check_invariants([](PageId) { return key_of(1, 7); }), std::logic_error);
  EXPECT_THROW(table.check_invariants([](PageId) { return key_of(0xf0000000, 2); }),
               std::logic_error);
}

TEST(TagTableTest, MatchesMapUnderRandomOperations) {
  std::mt19937 random(7);
  const auto below = [&](std::uint32_t n) { return static_cast<std::uint32_t>(random() % n); };
  for (int round = 0; round < 60; ++round) {
    const PageId num_pages = static_cast<PageId>(1 + below(120));
    TagTable table(static_cast<std::size_t>(num_pages));
    std::map<PageId, std::uint64_t> golden;
    // Few homes, close to each other or at both ends of the table, make buckets overflow.
    const std::uint32_t num_homes = 1 + below(6);
    const auto random_key = [&] {
      return key_of(below(2) * 0xffffffffU - below(num_homes) * 0x08000000U,
                    static_cast<std::uint16_t>(below(3)));
    };
    for (int step = 0; step < 400; ++step) {
      const auto page = static_cast<PageId>(1 + below(static_cast<std::uint32_t>(num_pages)));
      const auto known = golden.find(page);
      if (known == golden.end()) {
        const std::uint64_t key = random_key();
        table.insert(key, page);
        golden[page] = key;
      } else if (below(4) > 0) {
        table.erase(known->second, page);
        golden.erase(known);
      } else {
        const auto other = static_cast<PageId>(1 + below(static_cast<std::uint32_t>(num_pages)));
        if (golden.contains(other)) continue;
        table.replace(known->second, page, other);
        golden[other] = known->second;
        golden.erase(page);
      }
      table.check_invariants([&](PageId each) { return golden.at(each); });
      std::set<PageId> found;
      table.for_each([&](PageId each) { EXPECT_TRUE(found.insert(each).second); });
      EXPECT_EQ(found.size(), golden.size());
      for (const auto& [each, key] : golden) EXPECT_EQ(find_page(table, key, each), each);
      const std::uint64_t key = random_key();
      for (PageId each = 1; each <= num_pages; ++each) {
        if (golden.contains(each)) continue;
        EXPECT_EQ(find_page(table, key, each), kNoPage);
      }
    }
    table.clear();
    table.for_each([](PageId page) { ADD_FAILURE() << page; });
    for (const auto& [each, key] : golden) EXPECT_EQ(find_page(table, key, each), kNoPage);
  }
}

}  // namespace
}  // namespace pagedkv
