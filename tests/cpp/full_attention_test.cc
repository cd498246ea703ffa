#include "pagedkv/policy/full_attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "hashes.h"

namespace pagedkv {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::int32_t kPageSize = 4;

class FullAttentionTest : public testing::Test {
 protected:
  // Holds `count` pages and caches those whose number is in `cached` as pages of one prefix.
  void cache(std::size_t count, std::initializer_list<std::size_t> cached) {
    std::vector<PageId> pages(count);
    ASSERT_TRUE(pool_.allocate(pages));
    for (std::size_t i = 0; i < count; ++i) hashes_.push_back(hash_of(i));
    for (std::size_t i : cached) pool_.cache(pages[i], hashes_[i], 0);
  }

  PagePool pool_{10};
  FullAttentionPolicy policy_{0, FullAttentionSpec(kPageSize, 1, 1, DType("float32"))};
  std::vector<PageHash> hashes_;
  std::vector<PageId> hit_ = {99};
};

TEST_F(FullAttentionTest, HitsUpToTheFirstMissingPage) {
  cache(4, {0, 1, 3});
  EXPECT_EQ(policy_.find_longest_hit(pool_, {hashes_, 1}, 16, 0, hit_), 8);
  EXPECT_THAT(hit_, ElementsAre(1, 2));
}

TEST_F(FullAttentionTest, HitsNoFurtherThanAsked) {
  cache(4, {0, 1, 2, 3});
  EXPECT_EQ(policy_.find_longest_hit(pool_, {hashes_, 1}, 11, 0, hit_), 8);
  EXPECT_THAT(hit_, ElementsAre(1, 2));
  EXPECT_EQ(policy_.find_longest_hit(pool_, {hashes_, 1}, 3, 0, hit_), 0);
  EXPECT_THAT(hit_, IsEmpty());
}

TEST_F(FullAttentionTest, MissesWithoutTheFirstPage) {
  cache(2, {1});
  EXPECT_EQ(policy_.find_longest_hit(pool_, {hashes_, 1}, 8, 0, hit_), 0);
  EXPECT_THAT(hit_, IsEmpty());
}

TEST_F(FullAttentionTest, LooksInItsOwnGroupOnly) {
  cache(1, {0});
  const FullAttentionPolicy other(1, FullAttentionSpec(kPageSize, 1, 1, DType("float32")));
  EXPECT_EQ(other.find_longest_hit(pool_, {hashes_, 1}, 4, 0, hit_), 0);
}

TEST_F(FullAttentionTest, NeedsAPageForEveryStartedOne) {
  EXPECT_EQ(policy_.num_pages_for({.num_tokens = 0}), 0);
  EXPECT_EQ(policy_.num_pages_for({.num_tokens = 1}), 1);
  EXPECT_EQ(policy_.num_pages_for({.num_tokens = 4}), 1);
  EXPECT_EQ(policy_.num_pages_for({.num_tokens = 5}), 2);
}

}  // namespace
}  // namespace pagedkv
