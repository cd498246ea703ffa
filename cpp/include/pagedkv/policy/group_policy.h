#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "pagedkv/math.h"
#include "pagedkv/policy/cached_pages.h"
#include "pagedkv/policy/group_hashes.h"
#include "pagedkv/spec/cache_group_spec.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// How long a request is, as far as its pages depend on it.
struct RequestLength {
  std::int32_t num_tokens = 0;            ///< Of the decoder: prompt and output.
  std::int32_t num_lookahead_tokens = 0;  ///< Draft tokens after those, which may be rejected.
  std::int32_t num_encoder_tokens = 0;    ///< What cross attention looks at.
};

/// Positions in a row, from `begin` to before `end`.
struct RowRange {
  std::int32_t begin = 0;
  std::int32_t end = 0;
};

/// What one attention type asks of the pages of its group. Stateless: what requests hold is in
/// `RequestState`.
///
/// A request's pages are a row of ids by position: page `i` is for tokens from `i * page_size()`
/// on. Where a type needs no page, the row has the null page. The defaults are those of a type
/// that keeps every token.
class GroupPolicy {
 public:
  virtual ~GroupPolicy() = default;

  /// Tokens a page holds.
  std::int32_t page_size() const { return page_size_; }

  /// The group whose pages the policy decides on.
  GroupId group() const { return group_; }

  /// Replaces `pages` by a row that lets a request go on after a prefix: the longest one of at
  /// most `max_tokens` tokens, in whole pages, that is cached as far as the type needs it. Returns
  /// its tokens, which is what the row covers.
  ///
  /// The request is going to compute the last `num_redone` tokens of the prefix again, so it
  /// needs what a request needs that goes on right before them, and the rest of the prefix as well.
  /// Requires `hashes` to cover `max_tokens`, and `num_redone` to be a multiple of `page_size()`.
  virtual std::int32_t find_longest_hit(const CachedPages& cached, const GroupHashes& hashes,
                                        std::int32_t max_tokens, std::int32_t num_redone,
                                        std::vector<PageId>& pages) const = 0;

  /// Length of the row of a request.
  virtual std::int32_t num_pages_for(const RequestLength& length) const {
    return ceil_div(length.num_tokens + length.num_lookahead_tokens, page_size_);
  }

  /// Most pages that a request of `length` holds at a time, if no step is longer than
  /// `max_new_tokens`. May be too many, never too few.
  virtual std::int32_t max_num_pages(const RequestLength& length,
                                     std::int32_t /*max_new_tokens*/) const {
    return num_pages_for(length);
  }

  /// First page of a row of `num_pages_for(length)` pages that a step writes to, when it is
  /// lengthened to that: those before, if they are new, stay null.
  virtual std::int32_t first_written_page(const RequestLength&) const { return 0; }

  /// First page that is read when the token after `num_computed_tokens` is computed, or later.
  virtual std::int32_t first_needed_page(std::int32_t /*num_computed_tokens*/) const { return 0; }

  /// Tokens, computed and new, up to which a row of `num_pages` pages neither grows nor gives
  /// pages back, if its first `num_skipped` are given back already. May be too few, never too many:
  /// what it is for is not to plan steps in which nothing happens.
  virtual std::int32_t num_quiet_tokens(std::int32_t num_pages, std::int32_t num_skipped) const = 0;

  /// Whether the last cached page stays even if it is not needed, where EasyDeL is followed page by
  /// page: its manager for this type looks up the parent of the next digest there.
  virtual bool keeps_last_cached_page() const { return false; }

  /// Whether page `page` holds what its digest says, when a step has ended after `step_end`
  /// tokens. Requires a page that those tokens fill.
  virtual bool is_complete(std::int32_t /*page*/, std::int64_t /*step_end*/) const { return true; }

  /// Pages that hold what the first `num_computed_tokens` tokens left there, and that later tokens
  /// write to: two requests that go on from there cannot share them. Those before are final. May
  /// lie behind the end of the row.
  virtual RowRange rewritten_pages(std::int32_t num_computed_tokens) const {
    return {num_computed_tokens / page_size_, ceil_div(num_computed_tokens, page_size_)};
  }

  /// Whether each token has a slot of its own in the pages.
  virtual bool has_slots() const { return true; }

  /// Whether leading pages that many requests hold are a prefix that all of them read.
  virtual bool reads_whole_prefix() const { return false; }

 protected:
  GroupPolicy(GroupId group, std::int32_t page_size) : group_(group), page_size_(page_size) {}

  static constexpr std::int32_t kAnyNumTokens = std::numeric_limits<std::int32_t>::max();

  /// Pages that so many tokens in a row may lie in, wherever the first of them is.
  std::int32_t num_pages_across(std::int64_t num_tokens) const {
    return static_cast<std::int32_t>(
        std::min(ceil_div(num_tokens, std::int64_t{page_size_}) + 1, std::int64_t{kAnyNumTokens}));
  }

  /// Tokens that `num_pages` pages have slots for; `kAnyNumTokens` if they are more.
  std::int32_t num_slots(std::int32_t num_pages) const {
    return static_cast<std::int32_t>(
        std::min(std::int64_t{num_pages} * page_size_, std::int64_t{kAnyNumTokens}));
  }

 private:
  GroupId group_;
  std::int32_t page_size_;
};

/// The policy for layers of `spec`.
std::unique_ptr<GroupPolicy> make_policy(GroupId group, const AnyCacheSpec& spec);

}  // namespace pagedkv
