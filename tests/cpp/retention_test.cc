#include "pagedkv/manager/retention.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

namespace pagedkv {
namespace {

TEST(RetentionTest, IsForAllTokensWithoutRanges) {
  const Retention retention({.priority = 70, .ttl = 9, .tenant = 3});
  EXPECT_EQ(retention.term_of(0, 4, 100), retention.term());
  EXPECT_EQ(retention.term_of(100, 104, 100), retention.term());
}

TEST(RetentionTest, APageHasTheStrongestTermOfItsTokens) {
  const Retention retention(
      {.priority = 50, .tenant = 3},
      {{.begin = 8, .end = 12, .priority = 20}, {.begin = 0, .end = 6, .priority = 90, .ttl = 5}});
  const auto priority = [&](std::int32_t begin) {
    return retention.term_of(begin, begin + 4, 100).priority;
  };
  EXPECT_EQ(priority(0), 90);
  EXPECT_EQ(priority(4), 90) << "tokens 4 and 5";
  EXPECT_EQ(priority(8), 20) << "all four are in the low range";
  EXPECT_EQ(priority(9), 50) << "token 12 is in no range";
  EXPECT_EQ(priority(7), 50) << "token 7 is in no range";
  EXPECT_EQ(priority(12), 50);
  EXPECT_EQ(retention.term_of(0, 4, 100), (RetentionTerm{90, 5, 3}));
}

TEST(RetentionTest, OverlappingRangesCoverTogether) {
  const Retention retention({.priority = 50}, {{.begin = 0, .end = 3, .priority = 10},
                                               {.begin = 2, .end = 4, .priority = 20}});
  EXPECT_EQ(retention.term_of(0, 4, 100).priority, 20);
  EXPECT_EQ(retention.term_of(0, 5, 100).priority, 50);
}

TEST(RetentionTest, DecodedTokensHaveATermOfTheirOwn) {
  const Retention retention({.priority = 80, .tenant = 3}, {{.begin = 0, .priority = 90}},
                            RetentionTerm{.priority = 10});
  EXPECT_EQ(retention.term_of(8, 12, 8), (RetentionTerm{.priority = 10, .tenant = 3}));
  EXPECT_EQ(retention.term_of(4, 8, 8).priority, 90);
  EXPECT_EQ(retention.term_of(4, 8, 6).priority, 90) << "prompt and output in one page";
  EXPECT_EQ(retention.term_of(4, 8, 4).priority, 10) << "ranges are about the prompt";
}

TEST(RetentionTest, ALimitOnTheDefaultPriorityIsNone) {
  EXPECT_EQ(Retention({.ttl = 5}).term(), RetentionTerm{});
}

TEST(RetentionTest, RefusesWhatIsOutOfRange) {
  EXPECT_THROW(Retention({.priority = 101}), std::invalid_argument);
  EXPECT_THROW(Retention({.ttl = 0}), std::invalid_argument);
  EXPECT_THROW(Retention({}, {{.begin = -1}}), std::invalid_argument);
  EXPECT_THROW(Retention({}, {{.begin = 3, .end = 3}}), std::invalid_argument);
  EXPECT_THROW(Retention({}, {{.priority = -1}}), std::invalid_argument);
  EXPECT_THROW(Retention({}, {{.ttl = -1}}), std::invalid_argument);
  EXPECT_THROW(Retention({}, {}, RetentionTerm{.priority = 101}), std::invalid_argument);
}

}  // namespace
}  // namespace pagedkv
