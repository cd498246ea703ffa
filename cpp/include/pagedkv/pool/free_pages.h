#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "pagedkv/pool/free_queue.h"
#include "pagedkv/pool/page.h"
#include "pagedkv/pool/page_shards.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// The free pages of a pool, which can be asked for by shard: one LRU queue a shard.
///
/// Pages are stamped when they come, so the coldest of all is the coldest of the queues' fronts:
/// whoever names no shard sees one LRU order of all pages. Operations are O(1), or O(shards) for
/// "any shard"; none depends on how many pages there are. The records must outlive this.
///
/// Invariant: a page is in no queue but that of its shard, and stamps rise along each queue.
class FreePages {
 public:
  /// Starts empty, with one shard: no page of `pages` may be linked.
  explicit FreePages(std::span<Page> pages);

  const PageShards& shards() const { return shards_; }

  /// Deals the free pages out to other shards, in the order they are in. O(pages).
  void set_shards(const PageShards& shards);

  PageId size() const { return size_; }

  /// Free pages of `shard`; all of them for `kAnyShard`.
  PageId size(ShardId shard) const {
    return shard == kAnyShard ? size_ : queues_[static_cast<std::size_t>(shard)].size();
  }

  bool contains(PageId page) const { return queues_.front().contains(page); }

  /// Takes the coldest page of `shard`, or of all for `kAnyShard`; `kNoPage` if there is none.
  PageId pop_front(ShardId shard = kAnyShard);

  /// Adds `page` as the warmest. Requires `!contains(page)`.
  void push_back(PageId page);

  /// Takes `page` from wherever it is. Requires `contains(page)`.
  void remove(PageId page);

  /// All pages from the coldest to the warmest. O(free pages), and slower with shards.
  std::vector<PageId> in_order() const;

  /// Throws `std::logic_error` naming what does not hold. For tests.
  void check_invariants() const;

 private:
  Page& at(PageId page) { return pages_[static_cast<std::size_t>(page)]; }
  const Page& at(PageId page) const { return pages_[static_cast<std::size_t>(page)]; }
  FreeQueue& queue_of(PageId page) {
    return queues_[static_cast<std::size_t>(shards_.shard_of(page))];
  }
  FreeQueue& coldest_queue();

  std::span<Page> pages_;
  PageShards shards_;
  std::vector<FreeQueue> queues_;
  PageId size_ = 0;
  std::int64_t clock_ = 0;
};

}  // namespace pagedkv
