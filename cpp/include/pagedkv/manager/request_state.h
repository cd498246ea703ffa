#pragma once

#include <cstdint>
#include <span>

#include "pagedkv/manager/page_row.h"
#include "pagedkv/pool/page_shards.h"
#include "pagedkv/types.h"

namespace pagedkv {

class Request;

/// The data-parallel shard that pages are in, found out as they come.
class CommonShard {
 public:
  /// Counts `pages` in; null pages are in no shard.
  void add(std::span<const PageId> pages, const PageShards& shards) {
    if (shards.size() == 1) return;
    for (const PageId page : pages) {
      if (page == kNullPage) continue;
      const ShardId shard = shards.shard_of(page);
      if (first_ == kAnyShard) first_ = shard;
      is_mixed_ |= shard != first_;
    }
  }

  bool is_mixed() const { return is_mixed_; }

  /// The shard of all pages; `kAnyShard` if there is no such.
  ShardId get() const { return is_mixed_ ? kAnyShard : first_; }

 private:
  ShardId first_ = kAnyShard;
  bool is_mixed_ = false;
};

/// Who has a place in a manager. Its rows of pages are in an array of their own, and what most
/// steps ask is in the request itself: see `StepBounds`.
struct RequestState {
  Request* request = nullptr;  ///< Null: the place is free.
  CommonShard shard;           ///< Of the pages in the rows, and some that were there with them.
};

/// The shard that all pages of `rows` are in. O(pages).
inline CommonShard shard_of(std::span<const PageRow> rows, const PageShards& shards) {
  CommonShard common;
  for (const PageRow& row : rows) common.add(row.pages(), shards);
  return common;
}

}  // namespace pagedkv
