#include "pagedkv/policy/full_attention.h"

#include <gmock/gmock.h>

#include "policy_fixture.h"

namespace pagedkv {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class FullAttentionTest : public PolicyTest {
 protected:
  FullAttentionPolicy policy_{0, FullAttentionSpec(byte_layout(kPageSize))};
};

TEST_F(FullAttentionTest, HitsUpToTheFirstMissingPage) {
  cache(4, {0, 1, 3});
  EXPECT_EQ(hit(policy_, 16), 8);
  EXPECT_THAT(row_, ElementsAre(1, 2));
}

TEST_F(FullAttentionTest, HitsNoFurtherThanAsked) {
  cache(4, {0, 1, 2, 3});
  EXPECT_EQ(hit(policy_, 11), 8);
  EXPECT_THAT(row_, ElementsAre(1, 2));
  EXPECT_EQ(hit(policy_, 3), 0);
  EXPECT_THAT(row_, IsEmpty());
}

TEST_F(FullAttentionTest, MissesWithoutTheFirstPage) {
  cache(2, {1});
  EXPECT_EQ(hit(policy_, 8), 0);
  EXPECT_THAT(row_, IsEmpty());
}

TEST_F(FullAttentionTest, LooksInItsOwnGroupOnly) {
  cache(1, {0});
  EXPECT_EQ(hit(FullAttentionPolicy(1, FullAttentionSpec(byte_layout(kPageSize))), 4), 0);
}

TEST_F(FullAttentionTest, KeepsEveryPage) {
  EXPECT_EQ(policy_.first_needed_page(1000), 0);
  EXPECT_EQ(policy_.num_pages_for({.num_tokens = 0}), 0);
  EXPECT_EQ(policy_.num_pages_for({.num_tokens = 4}), 1);
  EXPECT_EQ(policy_.num_pages_for({.num_tokens = 4, .num_lookahead_tokens = 1}), 2);
  EXPECT_TRUE(policy_.reads_whole_prefix());
}

}  // namespace
}  // namespace pagedkv
