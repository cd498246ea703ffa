#include "pagedkv/batch/batch_tables.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

namespace pagedkv {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<TokenId> tokens_of(std::size_t count) {
  std::vector<TokenId> tokens(count);
  std::iota(tokens.begin(), tokens.end(), 100);
  return tokens;
}

class BatchTablesTest : public testing::Test {
 protected:
  BatchTablesTest() {
    EXPECT_TRUE(manager_.allocate(long_, 7));
    EXPECT_TRUE(manager_.allocate(short_, 2));
  }

  const std::vector<CacheGroupSpec> groups_ = {{FullAttentionSpec(4, 1, 1, DType("float32")), {}},
                                               {FullAttentionSpec(4, 1, 1, DType("float32")), {}}};
  Request long_{"long", tokens_of(9)};
  Request short_{"short", tokens_of(3)};
  CacheManager manager_{16, groups_, 64};
  const std::vector<const Request*> both_ = {&long_, &short_};
};

TEST_F(BatchTablesTest, PageTableIsPaddedWithTheNullPage) {
  EXPECT_EQ(max_num_pages(manager_, both_, 0), 2);
  std::vector<PageId> table(6, 99);
  fill_page_table(manager_, both_, 0, 3, table);
  EXPECT_THAT(table, ElementsAre(1, 2, 0, 5, 0, 0));
  fill_page_table(manager_, both_, 1, 3, table);
  EXPECT_THAT(table, ElementsAre(3, 4, 0, 6, 0, 0));
}

TEST_F(BatchTablesTest, PageTableOfNobodyIsEmpty) {
  EXPECT_EQ(max_num_pages(manager_, {}, 0), 0);
  fill_page_table(manager_, {}, 0, 3, {});
}

TEST_F(BatchTablesTest, RefusesARowLongerThanTheTable) {
  std::vector<PageId> table(2);
  EXPECT_THROW(fill_page_table(manager_, both_, 0, 1, table), std::invalid_argument);
}

TEST_F(BatchTablesTest, SlotsFollowTheComputedTokens) {
  manager_.commit(long_, 3);
  const std::vector<std::int32_t> counts = {3, 2};
  std::vector<std::int32_t> slots(static_cast<std::size_t>(num_slots(manager_, both_, counts)));
  fill_slot_mapping(manager_, both_, counts, 0, slots);
  EXPECT_THAT(slots, ElementsAre(7, 8, 9, 20, 21)) << "page 1 slot 3, page 2, then page 5";
}

TEST_F(BatchTablesTest, SlotsOfNoTokensAreNone) {
  const std::vector<std::int32_t> counts = {0, 0};
  EXPECT_EQ(num_slots(manager_, both_, counts), 0);
}

TEST_F(BatchTablesTest, RefusesMoreTokensThanThereIsRoomFor) {
  EXPECT_THROW(num_slots(manager_, both_, std::vector<std::int32_t>{8, 0}), std::invalid_argument);
  EXPECT_THROW(num_slots(manager_, both_, std::vector<std::int32_t>{-1, 0}), std::invalid_argument);
  EXPECT_THROW(num_slots(manager_, both_, std::vector<std::int32_t>{1}), std::invalid_argument);
}

TEST_F(BatchTablesTest, NextTokensFollowTheComputedOnes) {
  manager_.commit(long_, 3);
  const std::vector<std::int32_t> counts = {4, 2};
  std::vector<TokenId> tokens(static_cast<std::size_t>(num_next_tokens(both_, counts)));
  fill_next_tokens(both_, counts, tokens);
  EXPECT_THAT(tokens, ElementsAre(103, 104, 105, 106, 100, 101));
}

TEST_F(BatchTablesTest, RefusesMoreTokensThanThereAre) {
  manager_.commit(long_, 3);
  EXPECT_EQ(num_next_tokens(both_, std::vector<std::int32_t>{6, 0}), 6) << "room does not matter";
  EXPECT_THROW(num_next_tokens(both_, std::vector<std::int32_t>{7, 0}), std::invalid_argument);
  EXPECT_THROW(num_next_tokens(both_, std::vector<std::int32_t>{-1, 0}), std::invalid_argument);
  EXPECT_THROW(num_next_tokens(both_, std::vector<std::int32_t>{1}), std::invalid_argument);
}

TEST_F(BatchTablesTest, RefusesForeignGroupsAndRequests) {
  Request stranger("stranger", tokens_of(3));
  const std::vector<const Request*> requests = {&stranger};
  EXPECT_THROW(max_num_pages(manager_, requests, 0), std::invalid_argument);
  EXPECT_THROW(num_slots(manager_, requests, std::vector<std::int32_t>{1}), std::invalid_argument);
  EXPECT_THROW(max_num_pages(manager_, both_, 2), std::out_of_range);
  EXPECT_THROW(max_num_pages(manager_, both_, -1), std::out_of_range);
}

}  // namespace
}  // namespace pagedkv
