#include "pagedkv/policy/sliding_window.h"

#include <gmock/gmock.h>

#include "policy_fixture.h"

namespace pagedkv {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class SlidingWindowTest : public PolicyTest {
 protected:
  static SlidingWindowPolicy window(std::int32_t size) {
    return {0, SlidingWindowSpec(byte_layout(kPageSize), size)};
  }
};

TEST_F(SlidingWindowTest, HitsWithTheWindowAlone) {
  cache(5, {3, 4});
  EXPECT_EQ(hit(window(9), 20), 20) << "token 20 sees tokens 12 to 19";
  EXPECT_THAT(row_, ElementsAre(0, 0, 0, 4, 5));
  EXPECT_EQ(hit(window(10), 20), 0) << "token 20 sees token 11, of page 2";
  EXPECT_THAT(row_, IsEmpty());
}

TEST_F(SlidingWindowTest, TakesTheLatestRunThatIsLongEnough) {
  cache(7, {0, 1, 3, 4, 6});
  EXPECT_EQ(hit(window(9), 28), 20);
  EXPECT_THAT(row_, ElementsAre(0, 0, 0, 4, 5));
  EXPECT_EQ(hit(window(5), 28), 28);
  EXPECT_THAT(row_, ElementsAre(0, 0, 0, 0, 0, 0, 7));
}

TEST_F(SlidingWindowTest, TakesAShortRunFromTheBeginning) {
  cache(5, {0, 1, 4});
  EXPECT_EQ(hit(window(100), 20), 8);
  EXPECT_THAT(row_, ElementsAre(1, 2));
}

TEST_F(SlidingWindowTest, NeedsNothingOfThePrefixIfItSeesOnlyItself) {
  cache(3, {});
  EXPECT_EQ(hit(window(1), 12), 12);
  EXPECT_THAT(row_, ElementsAre(0, 0, 0));
}

TEST_F(SlidingWindowTest, NeedsThePagesBeforeThoseComputedAgain) {
  cache(5, {3, 4});
  EXPECT_EQ(hit(window(5), 20, kPageSize), 20) << "token 16 sees tokens 12 to 15";
  EXPECT_EQ(hit(window(6), 20, kPageSize), 0) << "token 16 sees token 11";
}

TEST_F(SlidingWindowTest, ReadsFromTheFirstTokenInTheWindowOn) {
  EXPECT_EQ(window(9).first_needed_page(0), 0);
  EXPECT_EQ(window(9).first_needed_page(11), 0) << "token 11 sees token 3";
  EXPECT_EQ(window(9).first_needed_page(12), 1) << "token 12 sees token 4";
  EXPECT_EQ(window(1).first_needed_page(8), 2);
  EXPECT_FALSE(window(9).reads_whole_prefix());
}

}  // namespace
}  // namespace pagedkv
