#include "pagedkv/policy/state_space.h"

#include <gmock/gmock.h>

#include "policy_fixture.h"

namespace pagedkv {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class StateSpaceTest : public PolicyTest {
 protected:
  static StateSpacePolicy states(MambaCacheMode mode, std::int32_t num_speculative_pages = 0) {
    return {0, MambaSpec(kPageSize, {{{2, 8}, DType("float32")}}, std::nullopt, mode,
                         num_speculative_pages)};
  }
  const StateSpacePolicy running_ = states(MambaCacheMode::kNone);
  const StateSpacePolicy checkpoints_ = states(MambaCacheMode::kAlign);
};

TEST_F(StateSpaceTest, SharesNothingWithoutCheckpoints) {
  cache(3, {0, 1, 2});
  EXPECT_EQ(hit(running_, 12), 0);
  EXPECT_THAT(row_, IsEmpty());
  EXPECT_EQ(running_.num_pages_for({.num_tokens = 1000}), 1);
  EXPECT_EQ(running_.first_needed_page(1000), 0);
  EXPECT_FALSE(running_.is_complete(0, 4));
}

TEST_F(StateSpaceTest, GoesOnFromTheLastCheckpoint) {
  cache(5, {0, 2});
  EXPECT_EQ(hit(checkpoints_, 20), 12);
  EXPECT_THAT(row_, ElementsAre(0, 0, 3));
  EXPECT_EQ(hit(checkpoints_, 11), 4);
  EXPECT_THAT(row_, ElementsAre(1));
}

TEST_F(StateSpaceTest, NeedsTheCheckpointBeforeTheTokensComputedAgain) {
  cache(5, {1});
  EXPECT_EQ(hit(checkpoints_, 20, kPageSize), 12);
  EXPECT_EQ(hit(checkpoints_, 8, kPageSize), 0);
}

TEST_F(StateSpaceTest, KeepsTheLastStateAndWritesTheNext) {
  EXPECT_EQ(checkpoints_.first_needed_page(0), 0);
  EXPECT_EQ(checkpoints_.first_needed_page(8), 1) << "token 8 goes on from the state of page 1";
  EXPECT_EQ(checkpoints_.first_needed_page(9), 2);
  EXPECT_EQ(checkpoints_.first_written_page({.num_tokens = 20}), 4);
  EXPECT_EQ(checkpoints_.num_pages_for({.num_tokens = 20, .num_lookahead_tokens = 9}), 5);
  EXPECT_EQ(states(MambaCacheMode::kAlign, 2).num_pages_for({.num_tokens = 20}), 7);
}

TEST_F(StateSpaceTest, ChecksPagesOnlyWhereAStepEndsWithThem) {
  EXPECT_TRUE(checkpoints_.is_complete(1, 8));
  EXPECT_FALSE(checkpoints_.is_complete(0, 8));
  EXPECT_FALSE(checkpoints_.is_complete(1, 9));
  EXPECT_FALSE(checkpoints_.has_slots());
}

}  // namespace
}  // namespace pagedkv
