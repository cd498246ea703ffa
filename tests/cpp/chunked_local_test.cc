#include "pagedkv/policy/chunked_local.h"

#include <gmock/gmock.h>

#include "policy_fixture.h"

namespace pagedkv {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class ChunkedLocalTest : public PolicyTest {
 protected:
  static ChunkedLocalPolicy chunk(std::int32_t size) {
    return {0, ChunkedLocalAttentionSpec(byte_layout(kPageSize), size)};
  }
};

TEST_F(ChunkedLocalTest, NeedsOnlyTheChunkThePrefixEndsIn) {
  cache(4, {2});
  EXPECT_EQ(hit(chunk(8), 15), 12);
  EXPECT_THAT(row_, ElementsAre(0, 0, 3));
}

TEST_F(ChunkedLocalTest, NeedsNothingAtTheEndOfAChunk) {
  cache(4, {});
  EXPECT_EQ(hit(chunk(8), 16), 16);
  EXPECT_THAT(row_, ElementsAre(0, 0, 0, 0));
  EXPECT_EQ(hit(chunk(8), 15), 8) << "page 2 is missing, chunk 1 begins with it";
  EXPECT_THAT(row_, ElementsAre(0, 0));
}

TEST_F(ChunkedLocalTest, GoesBackAChunkThatBeginsInsideAMissingPage) {
  cache(4, {0, 1});
  EXPECT_EQ(hit(chunk(10), 16), 8) << "chunk 1 begins in page 2, which is missing";
  EXPECT_THAT(row_, ElementsAre(1, 2));
  PagePool empty(2);
  EXPECT_EQ(chunk(10).find_longest_hit(empty, {hashes_, 1}, 16, 0, row_), 0);
  EXPECT_THAT(row_, IsEmpty());
}

TEST_F(ChunkedLocalTest, NeedsTheChunkOfTheTokensComputedAgain) {
  cache(4, {2, 3});
  EXPECT_EQ(hit(chunk(8), 16, kPageSize), 16) << "token 12 sees tokens 8 to 11";
  EXPECT_EQ(hit(chunk(16), 16, kPageSize), 0) << "token 12 sees token 0";
}

TEST_F(ChunkedLocalTest, ReadsFromTheBeginningOfTheChunkOn) {
  EXPECT_EQ(chunk(8).first_needed_page(7), 0);
  EXPECT_EQ(chunk(8).first_needed_page(8), 2);
  EXPECT_EQ(chunk(10).first_needed_page(19), 2);
}

}  // namespace
}  // namespace pagedkv
