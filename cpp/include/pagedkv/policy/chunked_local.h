#pragma once

#include "pagedkv/policy/group_policy.h"

namespace pagedkv {

/// A token sees the tokens of its own chunk up to itself. Pages of earlier chunks are given back,
/// and a prefix can be shared if what it has of the chunk it ends in is cached: at the end of a
/// chunk that is nothing.
class ChunkedLocalPolicy final : public GroupPolicy {
 public:
  ChunkedLocalPolicy(GroupId group, const ChunkedLocalAttentionSpec& spec)
      : GroupPolicy(group, spec.page_size()), chunk_size_(spec.attention_chunk_size()) {}

  /// Looks in the chunk that the longest prefix ends in, then in those before it: a chunk that
  /// does not begin with a page may have no place in it where a page ends.
  std::int32_t find_longest_hit(const CachedPages& cached, const GroupHashes& hashes,
                                std::int32_t max_tokens, std::int32_t num_redone,
                                std::vector<PageId>& pages) const override;

  std::int32_t first_needed_page(std::int32_t num_computed_tokens) const override {
    return round_down(num_computed_tokens, chunk_size_) / page_size();
  }

  std::int32_t max_num_pages(const RequestLength& length,
                             std::int32_t max_new_tokens) const override {
    const std::int64_t seen = std::int64_t{chunk_size_} - 1 + max_new_tokens;
    return std::min(num_pages_for(length), num_pages_across(seen + length.num_lookahead_tokens));
  }

  std::int32_t num_quiet_tokens(std::int32_t num_pages, std::int32_t num_skipped) const override {
    const std::int64_t chunks = ceil_div(num_slots(num_skipped + 1), chunk_size_);
    return static_cast<std::int32_t>(
        std::min(chunks * chunk_size_, std::int64_t{num_slots(num_pages)}));
  }

  bool keeps_last_cached_page() const override { return true; }

 private:
  std::int32_t chunk_size_;
};

}  // namespace pagedkv
