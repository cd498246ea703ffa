#pragma once

#include "pagedkv/policy/group_policy.h"

namespace pagedkv {

/// A token sees itself and the `window - 1` tokens before it. Pages that no later token sees are
/// given back, and a prefix can be shared if only its last `window - 1` tokens are cached.
class SlidingWindowPolicy final : public GroupPolicy {
 public:
  SlidingWindowPolicy(GroupId group, const SlidingWindowSpec& spec)
      : GroupPolicy(group, spec.page_size()), window_(spec.sliding_window()) {}

  /// Looks from the end of the prefix to its beginning, for a run of cached pages that is long
  /// enough or reaches the beginning.
  std::int32_t find_longest_hit(const CachedPages& cached, const GroupHashes& hashes,
                                std::int32_t max_tokens, std::int32_t num_redone,
                                std::vector<PageId>& pages) const override;

  std::int32_t first_needed_page(std::int32_t num_computed_tokens) const override {
    return std::max(num_computed_tokens - window_ + 1, 0) / page_size();
  }

  std::int32_t max_num_pages(const RequestLength& length,
                             std::int32_t max_new_tokens) const override {
    const std::int64_t seen = std::int64_t{window_} - 1 + max_new_tokens;
    return std::min(num_pages_for(length), num_pages_across(seen + length.num_lookahead_tokens));
  }

  std::int32_t num_quiet_tokens(std::int32_t num_pages, std::int32_t num_skipped) const override {
    const std::int64_t next_skip = std::int64_t{num_slots(num_skipped + 1)} + window_ - 1;
    return static_cast<std::int32_t>(std::min(next_skip, std::int64_t{num_slots(num_pages)}));
  }

 private:
  std::int32_t window_;
};

}  // namespace pagedkv
