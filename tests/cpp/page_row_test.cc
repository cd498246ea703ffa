#include "pagedkv/manager/page_row.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

#include "hashes.h"
#include "pagedkv/policy/full_attention.h"
#include "pagedkv/policy/sliding_window.h"
#include "pagedkv/policy/state_space.h"
#include "spec_layouts.h"

namespace pagedkv {
namespace {

using testing::ElementsAre;

constexpr std::int32_t kPageSize = 4;
constexpr PageRange kAllPages = {0, 16};

AttentionLayout layout() {
  return {.page_size = kPageSize, .num_kv_heads = 1, .head_size = 1, .dtype = DType("float32")};
}

class PageRowTest : public testing::Test {
 protected:
  PageRowTest() {
    for (std::uint64_t i = 0; i < 8; ++i) hashes_.push_back(hash_of(i));
  }

  // Makes room for `num_tokens` tokens, of which some are computed.
  void grow(const GroupPolicy& policy, std::int32_t num_tokens, std::int32_t num_computed = 0,
            ShardId shard = kAnyShard) {
    const auto growth =
        row_.plan(policy, {num_tokens, 0, 0}, policy.first_needed_page(num_computed));
    const PageId num_free = pool_.num_free_pages();
    const std::int32_t expected =
        row_.num_pages_taken(growth) - row_.num_pages_freed(growth, pool_, kAllPages);
    row_.skip(pool_, growth.first_needed);
    row_.grow(pool_, growth, {.shard = shard});
    EXPECT_EQ(num_free - pool_.num_free_pages(), expected);
    row_.check_invariants(pool_, policy, {num_tokens, 0, 0}, "a");
  }

  void cache(const GroupPolicy& policy, std::int32_t num_tokens) {
    row_.cache(pool_, policy, {hashes_, 1}, num_tokens, num_tokens);
  }

  PagePool pool_{16};
  PageRow row_;
  std::vector<PageHash> hashes_;
  FullAttentionPolicy full_{0, FullAttentionSpec(kPageSize, 1, 1, DType("float32"))};
  SlidingWindowPolicy window_{0, SlidingWindowSpec(layout(), 5)};
};

TEST_F(PageRowTest, GrowsByWhatIsMissing) {
  grow(full_, 5);
  EXPECT_THAT(row_.pages(), ElementsAre(1, 2));
  grow(full_, 8);
  EXPECT_THAT(row_.pages(), ElementsAre(1, 2));
  grow(full_, 9);
  EXPECT_THAT(row_.pages(), ElementsAre(1, 2, 3));
}

TEST_F(PageRowTest, NeverShrinks) {
  grow(full_, 12);
  grow(full_, 4);
  EXPECT_EQ(row_.size(), 3);
}

TEST_F(PageRowTest, TakesPagesOfAShard) {
  pool_.set_num_shards(4);
  grow(full_, 8, 0, 2);
  EXPECT_THAT(row_.pages(), ElementsAre(8, 9));
}

TEST_F(PageRowTest, GivesTheLastSkippedPageBackFirst) {
  grow(window_, 12);
  row_.skip(pool_, 2);
  EXPECT_THAT(row_.pages(), ElementsAre(0, 0, 3));
  EXPECT_EQ(row_.num_skipped(), 2);
  const auto free = pool_.free_pages();
  EXPECT_THAT(std::vector(free.end() - 2, free.end()), ElementsAre(2, 1));
  row_.skip(pool_, 1);
  EXPECT_EQ(row_.num_skipped(), 2) << "what is gone stays gone";
  row_.skip(pool_, 99);
  EXPECT_THAT(row_.pages(), ElementsAre(0, 0, 0));
}

TEST_F(PageRowTest, CountsFreedPagesOfARange) {
  grow(window_, 16);
  const PageId shared = 2;
  pool_.hold(std::span(&shared, 1));
  const auto growth = row_.plan(window_, {20, 0, 0}, window_.first_needed_page(16));
  EXPECT_EQ(growth.first_needed, 3);
  EXPECT_EQ(row_.num_pages_freed(growth, pool_, kAllPages), 2) << "page 2 is held by another";
  EXPECT_EQ(row_.num_pages_freed(growth, pool_, {0, 2}), 1);
  EXPECT_EQ(row_.num_pages_freed(growth, pool_, {4, 8}), 0);
}

TEST_F(PageRowTest, AdoptsAPrefix) {
  grow(window_, 12);
  cache(window_, 12);
  PageRow second;
  std::vector<PageId> pages = {1, 2, 3};
  second.adopt(pages, 2);
  EXPECT_THAT(second.pages(), ElementsAre(0, 0, 3));
  EXPECT_EQ(second.num_cached(), 3);
  EXPECT_EQ(second.num_skipped(), 2);
  second.hold(pool_, {});
  EXPECT_EQ(pool_.ref_count(1), 1);
  EXPECT_EQ(pool_.ref_count(3), 2);
  second.check_invariants(pool_, window_, {12, 0, 0}, "b");
}

TEST_F(PageRowTest, CachesEachPageOnce) {
  grow(full_, 11);
  cache(full_, 7);
  EXPECT_EQ(row_.num_cached(), 1);
  cache(full_, 3);
  cache(full_, 11);
  EXPECT_EQ(row_.num_cached(), 2);
  EXPECT_EQ(pool_.find(hashes_[1], 0), 2);
  EXPECT_EQ(pool_.num_cached_pages(), 2);
}

TEST_F(PageRowTest, NeverCachesTheNullPage) {
  grow(window_, 12);
  row_.skip(pool_, 2);
  cache(window_, 12);
  EXPECT_EQ(pool_.num_cached_pages(), 1) << "the window left two pages before they were cached";
  EXPECT_EQ(pool_.find(hashes_[2], 0), 3);
}

TEST_F(PageRowTest, LeavesStatesOutThatNoStepEndsIn) {
  const StateSpacePolicy checkpoints(
      0, MambaSpec(kPageSize, {{{2, 8}, DType("float32")}}, {}, MambaCacheMode::kAlign));
  grow(checkpoints, 10);
  EXPECT_THAT(row_.pages(), ElementsAre(0, 0, 1));
  grow(checkpoints, 16, 10);
  EXPECT_THAT(row_.pages(), ElementsAre(0, 0, 1, 2));
}

TEST_F(PageRowTest, NamesWhatIsBroken) {
  grow(full_, 8);
  EXPECT_THROW(row_.check_invariants(pool_, full_, {9, 0, 0}, "a"), std::logic_error);
  pool_.cache(2, hashes_[0], 0);
  EXPECT_THROW(row_.check_invariants(pool_, full_, {8, 0, 0}, "a"), std::logic_error);
}

}  // namespace
}  // namespace pagedkv
