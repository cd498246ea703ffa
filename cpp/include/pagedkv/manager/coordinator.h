#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "pagedkv/hash/page_hash.h"
#include "pagedkv/policy/cached_pages.h"
#include "pagedkv/policy/group_policy.h"
#include "pagedkv/spec/cache_group_spec.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// Page ids of one request or one prefix, one row a group.
using GroupPages = std::vector<std::vector<PageId>>;

/// What the tokens that a request computes again are taken off of.
enum class RedoRule {
  kPrefix,    ///< The longest prefix that all groups can serve.
  kEachKind,  ///< What groups that read their whole prefix can serve, and then what others can: so
              ///< does EasyDeL, and takes them off twice where there are both kinds.
};

/// Makes the groups' policies agree. Stateless, like they are.
class Coordinator {
 public:
  /// Requests are hashed in pages of `hash_page_size` tokens; without one, in the largest that
  /// divide the pages of every group.
  ///
  /// Throws `std::invalid_argument` for no groups, and if `hash_page_size` does not divide the
  /// page size of a group.
  explicit Coordinator(std::span<const CacheGroupSpec> groups,
                       std::optional<std::int32_t> hash_page_size = std::nullopt,
                       RedoRule redo_rule = RedoRule::kPrefix);

  GroupId num_groups() const { return static_cast<GroupId>(policies_.size()); }

  /// Tokens of the pages that requests are hashed in.
  std::int32_t hash_page_size() const { return hash_page_size_; }

  /// Every prefix that can be shared is a multiple of this: the least common multiple of the
  /// groups' page sizes.
  std::int64_t prefix_unit() const { return prefix_unit_; }

  const GroupPolicy& policy(GroupId group) const {
    return *policies_[static_cast<std::size_t>(group)];
  }

  /// The digests of a request as `group` sees them.
  GroupHashes hashes_of(GroupId group, std::span<const PageHash> hashes) const {
    return {hashes, policy(group).page_size() / hash_page_size_};
  }

  /// Replaces `pages` by the rows that let a request go on after the longest prefix that every
  /// group can serve, of at most `max_tokens` tokens, of which the last `num_redone` are to be
  /// computed again. Returns the tokens of the prefix that are not, which the rows cover: a
  /// multiple of `prefix_unit()`, as `num_redone` must be. `hashes` covers `max_tokens`.
  ///
  /// The length starts at `max_tokens` and only shrinks: each group in turn says how much of it
  /// can be served, until all have agreed on one and the same length. Since each says the most it
  /// can, no group could have served a longer one that all others can.
  std::int32_t find_longest_hit(const CachedPages& cached, std::span<const PageHash> hashes,
                                std::int32_t max_tokens, std::int32_t num_redone,
                                GroupPages& pages) const;

 private:
  std::int32_t agree(std::span<const GroupId> groups, const CachedPages& cached,
                     std::span<const PageHash> hashes, std::int32_t max_tokens,
                     std::int32_t num_redone, GroupPages& pages) const;

  std::vector<std::unique_ptr<GroupPolicy>> policies_;
  std::vector<std::vector<GroupId>> rounds_;  // which groups have to agree with each other, in turn
  std::int32_t hash_page_size_ = 0;
  std::int64_t prefix_unit_ = 1;
};

}  // namespace pagedkv
