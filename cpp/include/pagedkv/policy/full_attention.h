#pragma once

#include "pagedkv/policy/group_policy.h"

namespace pagedkv {

/// Every token is kept, and a prefix can be shared as far as all its pages are cached.
class FullAttentionPolicy final : public GroupPolicy {
 public:
  FullAttentionPolicy(GroupId group, const FullAttentionSpec& spec)
      : GroupPolicy(group, spec.page_size()) {}

  std::int32_t find_longest_hit(const PagePool& pool, std::span<const PageHash> hashes,
                                std::int32_t max_tokens, std::vector<PageId>& pages) const override;

  std::int32_t num_pages_for(std::int32_t num_tokens) const override;
};

}  // namespace pagedkv
