#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "pagedkv/hash/page_hash.h"
#include "pagedkv/policy/group_policy.h"
#include "pagedkv/pool/page_pool.h"
#include "pagedkv/spec/cache_group_spec.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// Page ids of one request or one prefix, one list a group.
using GroupPages = std::vector<std::vector<PageId>>;

/// Makes the groups' policies agree. Stateless, like they are.
class Coordinator {
 public:
  /// Throws `std::invalid_argument` for no groups, or for groups with different page sizes.
  explicit Coordinator(std::span<const CacheGroupSpec> groups);

  GroupId num_groups() const { return static_cast<GroupId>(policies_.size()); }

  /// Tokens a page holds, in every group.
  std::int32_t page_size() const { return policies_.front()->page_size(); }

  const GroupPolicy& policy(GroupId group) const {
    return *policies_[static_cast<std::size_t>(group)];
  }

  /// Replaces `pages` by the cached pages of the longest prefix that every group can serve, of at
  /// most `max_tokens` tokens. Returns its tokens, a multiple of `page_size()`. `hashes` covers
  /// `max_tokens`.
  ///
  /// The length starts at `max_tokens` and only shrinks: each group in turn says how much of it
  /// can be served, until all have agreed on one and the same length.
  std::int32_t find_longest_hit(const PagePool& pool, std::span<const PageHash> hashes,
                                std::int32_t max_tokens, GroupPages& pages) const;

 private:
  std::vector<std::unique_ptr<GroupPolicy>> policies_;
};

}  // namespace pagedkv
