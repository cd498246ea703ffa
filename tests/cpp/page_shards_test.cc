#include "pagedkv/pool/page_shards.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>

namespace pagedkv {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(PageShardsTest, IsOneShardUnlessToldOtherwise) {
  const PageShards shards(7);
  EXPECT_EQ(shards.size(), 1);
  EXPECT_EQ(shards.shard_of(6), 0);
  EXPECT_EQ(shards.pages_of(0).begin, 0);
  EXPECT_EQ(shards.pages_of(0).end, 7);
}

TEST(PageShardsTest, CutsIntoRangesOfEqualSize) {
  const PageShards shards(12, 3);
  for (PageId page = 0; page < 12; ++page) {
    EXPECT_EQ(shards.shard_of(page), page / 4);
    for (ShardId shard = 0; shard < 3; ++shard) {
      EXPECT_EQ(shards.pages_of(shard).contains(page), shard == page / 4);
    }
    EXPECT_TRUE(shards.pages_of(kAnyShard).contains(page));
  }
  EXPECT_FALSE(shards.pages_of(kAnyShard).contains(12));
  EXPECT_FALSE(shards.pages_of(kAnyShard).contains(kNoPage));
}

TEST(PageShardsTest, RefusesCountsThatDoNotDivideThePages) {
  for (const std::int32_t count : {5, 13, 24, 2'147'483'647}) {
    EXPECT_THROW(PageShards(12, count), std::invalid_argument);
  }
  for (const std::int32_t count : {0, -1, -3}) {
    EXPECT_THROW(PageShards(12, count), std::invalid_argument);
  }
  EXPECT_THAT([] { PageShards(12, 5); },
              ThrowsMessage<std::invalid_argument>(HasSubstr("must divide num_pages 12, got 5")));
}

TEST(PageShardsTest, DoesNotOverflowInTheLargestPool) {
  constexpr PageId kPages = 2'147'483'646;
  const PageShards shards(kPages, 2);
  EXPECT_EQ(shards.pages_of(1).end, kPages);
  EXPECT_EQ(shards.pages_of(kAnyShard).end, kPages);
  EXPECT_EQ(shards.shard_of(kPages - 1), 1);
}

}  // namespace
}  // namespace pagedkv
