#include "pagedkv/manager/coordinator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

#include "hashes.h"

namespace pagedkv {
namespace {

using testing::ElementsAre;

CacheGroupSpec group_of(std::int32_t page_size) {
  return {FullAttentionSpec(page_size, 1, 1, DType("float32")), {}};
}

TEST(CoordinatorTest, HashesInPagesThatDivideEveryGroups) {
  EXPECT_THROW(Coordinator({}), std::invalid_argument);
  const std::vector<CacheGroupSpec> mixed = {group_of(12), group_of(8)};
  const Coordinator coordinator{mixed};
  EXPECT_EQ(coordinator.hash_page_size(), 4);
  EXPECT_EQ(coordinator.prefix_unit(), 24);
  EXPECT_EQ(Coordinator(mixed, 2).hash_page_size(), 2);
  EXPECT_THROW(Coordinator(mixed, 8), std::invalid_argument);
  EXPECT_THROW(Coordinator(mixed, 0), std::invalid_argument);
}

TEST(CoordinatorTest, CountsWithPageSizesThatHaveNothingInCommon) {
  constexpr std::int32_t kHuge = 2'147'483'647;  // a prime, and so is the next one down here
  const std::vector<CacheGroupSpec> groups = {group_of(kHuge), group_of(2'147'483'629),
                                              group_of(2'147'483'587)};
  EXPECT_EQ(Coordinator{groups}.hash_page_size(), 1);
  EXPECT_GT(Coordinator{groups}.prefix_unit(), kHuge);
}

TEST(CoordinatorTest, NamesALargerPageByTheLastDigestInIt) {
  PagePool pool(8);
  std::vector<PageId> pages(3);
  ASSERT_TRUE(pool.allocate(pages));
  std::vector<PageHash> hashes;
  for (std::uint64_t i = 0; i < 4; ++i) hashes.push_back(hash_of(i));
  const std::vector<CacheGroupSpec> groups = {group_of(8), group_of(4)};
  const Coordinator coordinator(groups);
  pool.cache(pages[0], hashes[1], 0);
  pool.cache(pages[1], hashes[0], 1);
  GroupPages hit;
  EXPECT_EQ(coordinator.find_longest_hit(pool, hashes, 16, 0, hit), 0) << "group 1 has half of it";
  pool.cache(pages[2], hashes[1], 1);
  EXPECT_EQ(coordinator.find_longest_hit(pool, hashes, 16, 0, hit), 8);
  EXPECT_THAT(hit, ElementsAre(ElementsAre(1), ElementsAre(2, 3)));
}

TEST(CoordinatorTest, AgreesOnWhatEveryGroupCanServe) {
  PagePool pool(16);
  std::vector<PageId> pages(9);
  ASSERT_TRUE(pool.allocate(pages));
  std::vector<PageHash> hashes;
  for (std::uint64_t i = 0; i < 4; ++i) hashes.push_back(hash_of(i));
  // Group 0 has pages 0-3, group 1 pages 0-1, group 2 pages 0-2.
  std::size_t next = 0;
  for (GroupId group = 0; group < 3; ++group) {
    const std::size_t count = group == 0 ? 4 : group == 1 ? 2 : 3;
    for (std::size_t i = 0; i < count; ++i) pool.cache(pages[next++], hashes[i], group);
  }
  const std::vector<CacheGroupSpec> groups(3, group_of(4));
  const Coordinator coordinator(groups);
  GroupPages hit;
  EXPECT_EQ(coordinator.find_longest_hit(pool, hashes, 16, 0, hit), 8);
  EXPECT_THAT(hit, ElementsAre(ElementsAre(1, 2), ElementsAre(5, 6), ElementsAre(7, 8)));
  EXPECT_EQ(coordinator.find_longest_hit(pool, hashes, 7, 0, hit), 4);
  EXPECT_THAT(hit, ElementsAre(ElementsAre(1), ElementsAre(5), ElementsAre(7)));
}

CacheGroupSpec window_of(std::int32_t window) {
  return {
      SlidingWindowSpec(
          {.page_size = 4, .num_kv_heads = 1, .head_size = 1, .dtype = DType("float32")}, window),
      {}};
}

// Four pages of 4 tokens, all cached in each of the groups: 1-4 in the first, 5-8 in the second.
class RedoRuleTest : public testing::Test {
 protected:
  RedoRuleTest() {
    std::vector<PageId> pages(8);
    EXPECT_TRUE(pool_.allocate(pages));
    for (std::size_t i = 0; i < 4; ++i) {
      hashes_.push_back(hash_of(i));
      pool_.cache(pages[i], hashes_[i], 0);
      pool_.cache(pages[i + 4], hashes_[i], 1);
    }
  }

  std::int32_t hit(const std::vector<CacheGroupSpec>& groups, RedoRule rule,
                   std::int32_t num_redone) {
    return Coordinator(groups, std::nullopt, rule)
        .find_longest_hit(pool_, hashes_, 16, num_redone, hit_);
  }

  PagePool pool_{16};
  std::vector<PageHash> hashes_;
  GroupPages hit_;
};

TEST_F(RedoRuleTest, TakesRedoneTokensOffOnceOrForEachKind) {
  const std::vector<CacheGroupSpec> mixed = {group_of(4), window_of(5)};
  EXPECT_EQ(hit(mixed, RedoRule::kPrefix, 4), 12);
  EXPECT_THAT(hit_, ElementsAre(ElementsAre(1, 2, 3), ElementsAre(0, 0, 7)));
  EXPECT_EQ(hit(mixed, RedoRule::kEachKind, 4), 8);
  EXPECT_THAT(hit_, ElementsAre(ElementsAre(1, 2), ElementsAre(0, 6)));
}

TEST_F(RedoRuleTest, GivesTheSameWhereNothingIsRedone) {
  const std::vector<CacheGroupSpec> mixed = {window_of(5), group_of(4)};
  EXPECT_EQ(hit(mixed, RedoRule::kPrefix, 0), 16);
  EXPECT_EQ(hit(mixed, RedoRule::kEachKind, 0), 16);
}

TEST_F(RedoRuleTest, GivesTheSameForGroupsOfOneKind) {
  EXPECT_EQ(hit({group_of(4), group_of(4)}, RedoRule::kEachKind, 4), 12);
  EXPECT_EQ(hit({window_of(5), window_of(9)}, RedoRule::kEachKind, 4), 12);
  EXPECT_EQ(hit({window_of(5)}, RedoRule::kEachKind, 4), 12);
}

TEST_F(RedoRuleTest, LeavesNothingOfAShortPrefix) {
  const std::vector<CacheGroupSpec> mixed = {group_of(4), window_of(5)};
  EXPECT_EQ(hit(mixed, RedoRule::kEachKind, 8), 0);
  EXPECT_THAT(hit_, ElementsAre(ElementsAre(), ElementsAre()));
  EXPECT_EQ(hit(mixed, RedoRule::kEachKind, 12), 0);
}

}  // namespace
}  // namespace pagedkv
