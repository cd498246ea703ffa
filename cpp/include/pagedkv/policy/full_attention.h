#pragma once

#include "pagedkv/policy/group_policy.h"

namespace pagedkv {

/// Every token is kept, and a prefix can be shared as far as all its pages are cached. Serves
/// attention sinks too: their tokens are among those that are kept.
class FullAttentionPolicy final : public GroupPolicy {
 public:
  FullAttentionPolicy(GroupId group, const FullAttentionSpec& spec)
      : GroupPolicy(group, spec.page_size()) {}

  std::int32_t find_longest_hit(const CachedPages& cached, const GroupHashes& hashes,
                                std::int32_t max_tokens, std::int32_t num_redone,
                                std::vector<PageId>& pages) const override;

  std::int32_t num_quiet_tokens(std::int32_t num_pages, std::int32_t) const override {
    return num_slots(num_pages);
  }

  bool reads_whole_prefix() const override { return true; }
};

}  // namespace pagedkv
