#pragma once

#include "pagedkv/policy/group_policy.h"

namespace pagedkv {

/// A layer with one state of fixed size: Mamba, linear attention, short convolution.
///
/// Without checkpoints a request has one page, which each step overwrites, and no prefix can be
/// shared. With them (`MambaCacheMode::kAlign`, the idea is vLLM's) page `i` of a request is for
/// the state after `(i + 1) * page_size()` tokens: a step reads the page of the last computed token
/// and writes that of its own last token. A page whose last token ends a step holds just the state
/// that its digest names, so others can go on from it; a step that runs past a page's end leaves no
/// checkpoint there. All pages before the last state are given back.
class StateSpacePolicy final : public GroupPolicy {
 public:
  StateSpacePolicy(GroupId group, const MambaSpec& spec)
      : GroupPolicy(group, spec.page_size()),
        keeps_checkpoints_(spec.cache_mode() == MambaCacheMode::kAlign),
        num_speculative_pages_(spec.num_speculative_pages()) {}

  /// The last checkpoint in the prefix is all that is needed of it.
  std::int32_t find_longest_hit(const CachedPages& cached, const GroupHashes& hashes,
                                std::int32_t max_tokens, std::int32_t num_redone,
                                std::vector<PageId>& pages) const override;

  std::int32_t num_pages_for(const RequestLength& length) const override {
    return saturating_add(last_state(length.num_tokens) + 1, num_speculative_pages_);
  }

  std::int32_t max_num_pages(const RequestLength& length, std::int32_t) const override {
    return std::min(num_pages_for(length), saturating_add(2, num_speculative_pages_));
  }

  std::int32_t first_written_page(const RequestLength& length) const override {
    return last_state(length.num_tokens);
  }

  std::int32_t first_needed_page(std::int32_t num_computed_tokens) const override {
    return last_state(num_computed_tokens);
  }

  std::int32_t num_quiet_tokens(std::int32_t num_pages, std::int32_t) const override {
    return keeps_checkpoints_ || num_pages <= num_speculative_pages_ ? 0 : kAnyNumTokens;
  }

  bool is_complete(std::int32_t page, std::int64_t step_end) const override {
    return keeps_checkpoints_ && (std::int64_t{page} + 1) * page_size() == step_end;
  }

  RowRange rewritten_pages(std::int32_t num_computed_tokens) const override {
    if (keeps_checkpoints_) return GroupPolicy::rewritten_pages(num_computed_tokens);
    return {0, 1};
  }

  bool has_slots() const override { return false; }

 private:
  // The page of the state after `num_tokens` tokens.
  std::int32_t last_state(std::int32_t num_tokens) const {
    return keeps_checkpoints_ ? std::max(num_tokens - 1, 0) / page_size() : 0;
  }

  bool keeps_checkpoints_;
  std::int32_t num_speculative_pages_;
};

}  // namespace pagedkv
