#pragma once

#include "pagedkv/hash/page_hash.h"
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

  /// Fetch from memory, without waiting for it, what `find` needs: first where the page is named,
  /// and a while later its record.
  void prefetch(const PageHash& hash, GroupId group) const { pool_.prefetch(hash, group); }
  void prefetch_record(const PageHash& hash, GroupId group) const {
    pool_.prefetch_record(hash, group);
  }

 private:
  const PagePool& pool_;
  ShardId shard_;
};

}  // namespace pagedkv
