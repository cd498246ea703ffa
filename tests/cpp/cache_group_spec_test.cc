#include "pagedkv/spec/cache_group_spec.h"

#include <gtest/gtest.h>

#include <vector>

#include "pagedkv/policy/group_policy.h"
#include "spec_layouts.h"

namespace pagedkv {
namespace {

TEST(AnyCacheSpecTest, ShowsWhatIsCommon) {
  const AnyCacheSpec spec = SlidingWindowSpec(byte_layout(4), 8);
  EXPECT_EQ(base_of(spec).page_size(), 4);
  EXPECT_EQ(name_of(spec), "SlidingWindowSpec");
}

TEST(AnyCacheSpecTest, MergesByTheRuleOfTheType) {
  const std::vector<AnyCacheSpec> specs = {FullAttentionSpec(byte_layout(4)),
                                           FullAttentionSpec(byte_layout(4), 8)};
  EXPECT_EQ(merge(specs), AnyCacheSpec(FullAttentionSpec(byte_layout(4), 8)));
}

TEST(AnyCacheSpecTest, DoesNotMergeAcrossTypes) {
  const std::vector<AnyCacheSpec> specs = {FullAttentionSpec(byte_layout(4)),
                                           SlidingWindowSpec(byte_layout(4), 8)};
  expect_refusal([&] { merge(specs); },
                 "must have one type_id, got full_attention_4_64 and sliding_window_8_4_64");
  expect_refusal([] { merge(std::vector<AnyCacheSpec>{}); }, "[merge] cannot merge 0 specs");
}

TEST(CacheGroupsConfigTest, HoldsPagesAndGroups) {
  const CacheGroupSpec group{FullAttentionSpec(byte_layout(4)), {}};
  const CacheGroupsConfig config(8, {group});
  EXPECT_EQ(config.num_pages(), 8);
  EXPECT_EQ(config.kv_cache_groups().front(), group);
  EXPECT_EQ(group.layer_names, std::nullopt);
}

TEST(CacheGroupsConfigTest, RejectsEmptyPools) {
  const CacheGroupSpec group{FullAttentionSpec(byte_layout(4)), {}};
  expect_refusal([&] { CacheGroupsConfig(0, {group}); },
                 "[CacheGroupsConfig] num_pages must be >= 1, got 0");
  expect_refusal([] { CacheGroupsConfig(8, {}); },
                 "[CacheGroupsConfig] kv_cache_groups must not be empty");
}

}  // namespace
}  // namespace pagedkv
