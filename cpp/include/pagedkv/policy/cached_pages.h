#pragma once

#include <algorithm>
#include <cstdint>

#include "pagedkv/hash/page_hash.h"
#include "pagedkv/policy/group_hashes.h"
#include "pagedkv/pool/page_pool.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// The cached pages that a request may share: those of its shard.
class CachedPages {
 public:
  /// `shard` is one of the pool's. The pool must outlive this. Not explicit: a pool is its own
  /// cached pages.
  CachedPages(const PagePool& pool, ShardId shard = kAnyShard) : pool_(pool), shard_(shard) {}

  /// The oldest page whose content has this digest in `group`, or `kNoPage`.
  PageId find(const PageHash& hash, GroupId group) const { return pool_.find(hash, group, shard_); }

  /// To be called before the page at `i` of a run is looked up, from the first on. Each look-up
  /// waits for memory twice, for the table and for the page it names: once the first was found,
  /// those of the next pages are fetched side by side.
  void prefetch_run(const GroupHashes& hashes, std::int32_t i, std::int32_t end,
                    GroupId group) const {
    constexpr std::int32_t kNumPrefetched = 16;
    if (i % kNumPrefetched != 1) return;
    end = std::min(end, i + kNumPrefetched);
    for (std::int32_t next = i; next < end; ++next) pool_.prefetch(hashes[next], group);
    for (std::int32_t next = i; next < end; ++next) pool_.prefetch_page(hashes[next], group);
  }

 private:
  const PagePool& pool_;
  ShardId shard_;
};

}  // namespace pagedkv
