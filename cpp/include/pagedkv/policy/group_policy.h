#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "pagedkv/hash/page_hash.h"
#include "pagedkv/pool/page_pool.h"
#include "pagedkv/spec/cache_group_spec.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// What one attention type asks of the pages of its group. Stateless: what requests hold is in
/// `RequestState`.
class GroupPolicy {
 public:
  virtual ~GroupPolicy() = default;

  /// Tokens a page holds.
  std::int32_t page_size() const { return page_size_; }

  /// The group whose pages the policy decides on.
  GroupId group() const { return group_; }

  /// Replaces `pages` by the cached pages that let a request start after a prefix: the longest
  /// one of at most `max_tokens` tokens, in whole pages. Returns its tokens. `hashes[i]` is the
  /// digest of full page `i`, and covers `max_tokens`.
  virtual std::int32_t find_longest_hit(const PagePool& pool, std::span<const PageHash> hashes,
                                        std::int32_t max_tokens,
                                        std::vector<PageId>& pages) const = 0;

  /// Pages a request needs in its table once it has `num_tokens` tokens.
  virtual std::int32_t num_pages_for(std::int32_t num_tokens) const = 0;

 protected:
  GroupPolicy(GroupId group, std::int32_t page_size) : group_(group), page_size_(page_size) {}

 private:
  GroupId group_;
  std::int32_t page_size_;
};

/// The policy for layers of `spec`.
std::unique_ptr<GroupPolicy> make_policy(GroupId group, const AnyCacheSpec& spec);

}  // namespace pagedkv
