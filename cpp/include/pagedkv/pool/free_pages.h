#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "pagedkv/pool/free_queue.h"
#include "pagedkv/pool/page.h"
#include "pagedkv/pool/page_shards.h"
#include "pagedkv/pool/retention_lanes.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// The free pages of a pool, which can be asked for by shard: one LRU queue a shard.
///
/// Pages are stamped when they come, so the coldest of all is the coldest of the queues' fronts:
/// whoever names no shard sees one LRU order of all pages. Operations are O(1), or O(shards) for
/// "any shard"; none depends on how many pages there are. The records must outlive this.
///
/// Once `start_retention` was called, free pages with content are in lanes of their own, and the
/// queues are those of pages without. Nothing of that is made, or costs time, before.
///
/// Invariant: a page is in no queue but that of its shard, and stamps rise along each queue.
class FreePages {
 public:
  /// Starts empty, with one shard: no page of `pages` may be linked.
  explicit FreePages(std::span<Page> pages);

  const PageShards& shards() const { return shards_; }

  /// Adds the pages of `range`, whose records are zeroed memory, in the order of their ids: all are
  /// colder than those added later by `push_back`. O(1). Requires that there are no pages, and one
  /// shard.
  void add_unused(PageRange range);

  /// Deals the free pages out to other shards, in the order they are in. O(pages).
  void set_shards(const PageShards& shards);

  PageId size() const { return size_; }

  /// Free pages of `shard`; all of them for `kAnyShard`.
  PageId size(ShardId shard) const {
    if (shard == kAnyShard) return size_;
    return queues_[static_cast<std::size_t>(shard)].size() + (lanes_ ? lanes_->size(shard) : 0);
  }

  bool contains(PageId page) const { return queues_.front().contains(page); }

  /// Takes the coldest page of `shard`, or of all for `kAnyShard`; `kNoPage` if there is none.
  /// Requires `lanes() == nullptr`.
  PageId pop_front(ShardId shard = kAnyShard) {
    const PageId page = source(shard).pop_front();
    if (page != kNoPage) --size_;
    return page;
  }

  /// Adds `page` as the warmest. Requires `!contains(page)`.
  void push_back(PageId page) {
    at(page).set_freed_at(clock_++);
    ++size_;
    if (lanes_ != nullptr && takes_lane(page)) [[unlikely]]
      return;
    queue_of(page).push_back(page);
  }

  /// Adds `page`, which has no content, as the coldest: if all pages without content come so, they
  /// are colder than all with content. Requires `!contains(page)`.
  void push_front(PageId page);

  /// Takes `page` from wherever it is. Requires `contains(page)`.
  void remove(PageId page);

  /// All pages from the coldest to the warmest. O(free pages), and slower with shards. With lanes
  /// the order is that of now: a tenant over its quota may come under it as pages are taken.
  std::vector<PageId> in_order() const;

  // --- retention ---

  /// Sorts the free pages with content into lanes, from now on. O(pages), the first time.
  RetentionLanes& start_retention();

  /// The lanes, and the terms of held pages; null before `start_retention`.
  RetentionLanes* lanes() { return lanes_.get(); }
  const RetentionLanes* lanes() const { return lanes_.get(); }

  /// Whether a quota decides which page `pop_for` takes.
  bool is_forced(ShardId shard, TermId term) const {
    return lanes_ != nullptr && lanes_->choose(shard, term).is_forced;
  }

  /// As `pop_front`, for a page that is to be on `term`. Requires lanes.
  PageId pop_for(ShardId shard, TermId term);

  /// Whether the pool is to push pages without content to the front.
  void set_uncached_first(bool uncached_first) { uncached_first_ = uncached_first; }
  bool uncached_first() const { return uncached_first_; }

  /// To be called before all free pages lose their content.
  void drop_content();

  /// Throws `std::logic_error` naming what does not hold. For tests.
  void check_invariants() const;

 private:
  Page& at(PageId page) { return pages_[static_cast<std::size_t>(page)]; }
  const Page& at(PageId page) const { return pages_[static_cast<std::size_t>(page)]; }
  FreeQueue& queue_of(PageId page) {
    return queues_[static_cast<std::size_t>(shards_.shard_of(page))];
  }
  // Where the coldest page of `shard`, or of all, is.
  FreeQueue& source(ShardId shard) {
    if (shards_.size() == 1) [[likely]]
      return queues_.front();
    return shard == kAnyShard ? coldest_queue() : queues_[static_cast<std::size_t>(shard)];
  }
  FreeQueue& coldest_queue();
  bool takes_lane(PageId page);
  std::vector<PageId> queued() const;

  std::span<Page> pages_;
  PageShards shards_;
  std::vector<FreeQueue> queues_;
  std::unique_ptr<RetentionLanes> lanes_;
  PageId size_ = 0;
  bool uncached_first_ = false;
  std::int64_t clock_ = 1;        // of the next page that is pushed back; 0 is for unused ones
  std::int64_t front_clock_ = 0;  // of the last page that was pushed to the front
};

}  // namespace pagedkv
