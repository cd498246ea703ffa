#pragma once

#include "pagedkv/policy/group_policy.h"

namespace pagedkv {

/// K/V of an encoder's output: as many pages as it has tokens, from the first step to the last.
///
/// Nothing can be shared: the digests name what the decoder has seen, not the encoder's input.
class CrossAttentionPolicy final : public GroupPolicy {
 public:
  CrossAttentionPolicy(GroupId group, const CrossAttentionSpec& spec)
      : GroupPolicy(group, spec.page_size()) {}

  std::int32_t find_longest_hit(const CachedPages&, const GroupHashes&, std::int32_t, std::int32_t,
                                std::vector<PageId>& pages) const override {
    pages.clear();
    return 0;
  }

  std::int32_t num_pages_for(const RequestLength& length) const override {
    return ceil_div(length.num_encoder_tokens, page_size());
  }

  std::int32_t num_quiet_tokens(std::int32_t, std::int32_t) const override { return kAnyNumTokens; }

  RowRange rewritten_pages(std::int32_t) const override { return {kAnyNumTokens, kAnyNumTokens}; }

  bool is_complete(std::int32_t, std::int64_t) const override { return false; }

  bool has_slots() const override { return false; }
};

}  // namespace pagedkv
