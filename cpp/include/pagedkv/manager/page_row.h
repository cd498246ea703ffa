#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "pagedkv/manager/row_claim.h"
#include "pagedkv/policy/group_policy.h"
#include "pagedkv/pool/page_pool.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// A page whose content is to be copied to another one.
struct PageCopy {
  PageId source;
  PageId target;

  friend bool operator==(const PageCopy&, const PageCopy&) = default;
};

using PageCopies = std::vector<PageCopy>;

/// What one request holds in one group: its row of the page table, from page 0 on.
///
/// Invariant: pages before `num_skipped()` are null; where each token has a slot, those after are
/// not, and those before `num_cached()` can be found.
class PageRow {
 public:
  /// What is going to happen to a row.
  struct Growth {
    std::int32_t first_needed = 0;  ///< Pages before it are given back.
    std::int32_t first_filled = 0;  ///< From here on, the row has real pages.
    std::int32_t num_pages = 0;     ///< Length of the row.
  };

  std::span<const PageId> pages() const { return pages_; }
  std::int32_t size() const { return static_cast<std::int32_t>(pages_.size()); }

  /// Leading pages that are in the index, or never will be.
  std::int32_t num_cached() const { return num_cached_; }

  /// Leading pages that are not needed any more.
  std::int32_t num_skipped() const { return num_skipped_; }

  /// Starts an empty row with the pages of a cached prefix, which it takes out of `pages`. Those
  /// before `first_needed` are not needed. `hold` them next.
  void adopt(std::vector<PageId>& pages, std::int32_t first_needed);

  /// Holds all pages of the row once more, on the terms of `claim`.
  void hold(PagePool& pool, const RowClaim& claim) const;

  /// Pages that `fork` of this row takes from the pool.
  PageId num_pages_copied(const RowRange& rewritten) const;

  /// Starts an empty row as that of a request which goes on where `parent` is: holds the pages
  /// before `rewritten`, and takes a page for each in it, to be copied: adds those to `copies`.
  /// Requires that the shard of `claim` has as many.
  void fork(PagePool& pool, const PageRow& parent, const RowRange& rewritten, const RowClaim& claim,
            PageCopies& copies);

  /// What it takes to make room for `length`, when pages before `first_needed` are not needed.
  Growth plan(const GroupPolicy& policy, const RequestLength& length,
              std::int32_t first_needed) const;

  /// Pages that a growth takes from the pool.
  std::int32_t num_pages_taken(const Growth& growth) const;

  /// Pages of `range` that a growth gives back and nobody else holds.
  std::int32_t num_pages_freed(const Growth& growth, const PagePool& pool,
                               const PageRange& range) const;

  /// Gives the pages before `first_needed` back; the last of them becomes the coldest, as when a
  /// request is freed.
  void skip(PagePool& pool, std::int32_t first_needed);

  /// Takes the pages of a growth. Requires that the shard of `claim` has as many.
  void grow(PagePool& pool, const Growth& growth, const RowClaim& claim);

  /// Makes the pages that the first `num_tokens` tokens fill findable, if they hold what their
  /// digests say when a step has ended after `step_end` tokens. With `deduplicate`, a page whose
  /// content another page of its shard holds is given back, and the row has that one in its place,
  /// on the stronger of both pages' terms. Returns how many were replaced.
  std::int32_t cache(PagePool& pool, const GroupPolicy& policy, const GroupHashes& hashes,
                     std::int32_t num_tokens, std::int64_t step_end, bool deduplicate = false);

  /// Forgets the pages, which the caller has given back or given to somebody else.
  void clear();

  /// Throws `std::logic_error` naming what does not hold for a request that has room for `length`.
  void check_invariants(const PagePool& pool, const GroupPolicy& policy,
                        const RequestLength& length, const std::string& request_id) const;

 private:
  void take(PagePool& pool, std::ptrdiff_t begin, std::ptrdiff_t end, const RowClaim& claim);

  std::vector<PageId> pages_;
  std::int32_t num_cached_ = 0;
  std::int32_t num_skipped_ = 0;
};

}  // namespace pagedkv
