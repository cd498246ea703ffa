#pragma once

#include <gtest/gtest.h>

#include <initializer_list>
#include <vector>

#include "hashes.h"
#include "pagedkv/policy/group_policy.h"
#include "spec_layouts.h"

namespace pagedkv {

/// A pool in which some pages of one prefix are cached in group 0: page `i` of the prefix is page
/// `i + 1` of the pool.
class PolicyTest : public testing::Test {
 protected:
  static constexpr std::int32_t kPageSize = 4;

  void cache(std::int32_t count, std::initializer_list<std::size_t> cached) {
    std::vector<PageId> pages(static_cast<std::size_t>(count));
    ASSERT_TRUE(pool_.allocate(pages));
    for (std::size_t i = 0; i < pages.size(); ++i) hashes_.push_back(hash_of(i));
    for (std::size_t i : cached) pool_.cache(pages[i], hashes_[i], 0);
  }

  std::int32_t hit(const GroupPolicy& policy, std::int32_t max_tokens,
                   std::int32_t num_redone = 0) {
    return policy.find_longest_hit(pool_, {hashes_, 1}, max_tokens, num_redone, row_);
  }

  PagePool pool_{16};
  std::vector<PageHash> hashes_;
  std::vector<PageId> row_ = {99};
};

}  // namespace pagedkv
