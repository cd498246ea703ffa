#pragma once

#include <cstdint>

#include "pagedkv/types.h"

namespace pagedkv {

/// Page ids from `begin` to before `end`.
struct PageRange {
  PageId begin = 0;
  PageId end = 0;

  bool contains(PageId page) const { return page >= begin && page < end; }
};

/// Cuts the ids of a pool into contiguous ranges of equal size, one a data-parallel replica: page
/// tensors whose first axis is sharded over the replicas keep each range on one of them. The null
/// page counts as one of shard 0.
class PageShards {
 public:
  /// Throws `std::invalid_argument` unless `num_shards >= 1` divides `num_pages`.
  explicit PageShards(PageId num_pages, std::int32_t num_shards = 1);

  std::int32_t size() const { return size_; }

  ShardId shard_of(PageId page) const { return size_ == 1 ? 0 : page / pages_per_shard_; }

  /// The pages of `shard`; all of them for `kAnyShard`. Requires a shard of these.
  PageRange pages_of(ShardId shard) const {
    if (shard == kAnyShard) return {0, size_ * pages_per_shard_};
    return {shard * pages_per_shard_, (shard + 1) * pages_per_shard_};
  }

 private:
  std::int32_t size_;
  PageId pages_per_shard_;
};

}  // namespace pagedkv
