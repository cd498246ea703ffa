#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "pagedkv/hash/page_hash.h"
#include "pagedkv/pool/free_pages.h"
#include "pagedkv/pool/large_array.h"
#include "pagedkv/pool/page.h"
#include "pagedkv/pool/page_content.h"
#include "pagedkv/pool/page_shards.h"
#include "pagedkv/pool/pool_counts.h"
#include "pagedkv/pool/prefix_index.h"
#include "pagedkv/pool/retention_term.h"
#include "pagedkv/types.h"
#include "pagedkv/watch/page_watch.h"

namespace pagedkv {

/// Where freed pages go.
enum class FreeOrder {
  kLru,            ///< All are evicted in the order in which they were freed.
  kUncachedFirst,  ///< Those without content go first, the last ones freed before others, so that
                   ///< no content is lost while there is one. vLLM's order.
};

/// What pages are allocated for.
struct PageClaim {
  ShardId shard = kAnyShard;
  RetentionTerm term = {};  ///< What the pages are kept on when they are free.
  /// Give the pages in rising order, and take the pages right after `after` and each other where
  /// those are free and have no content: then a row of pages is made of few contiguous runs.
  bool contiguous = false;
  PageId after = kNoPage;  ///< The page before those asked for; `kNoPage`: there is none.
};

/// Who holds which page, which pages are free, and what the cached ones contain.
///
/// A page is *held* by `ref_count` requests, or free. A free page keeps its content, and can be
/// found by it, until it is handed out again: freed pages are evicted least recently used first.
/// Page 0 is the null page: never free, never held, never cached.
///
/// The pages may be dealt out to data-parallel shards. Whoever names no shard sees one pool.
///
/// Pages can be *retained*: on a term with a priority, a time limit and a tenant with a quota. Free
/// pages with content are then evicted in this order: those of tenants over their quota; lower
/// priorities; those freed earlier. A page without content goes before pages of any priority but
/// the default one, and among those in the order in which it was freed (or before them, with
/// `FreeOrder::kUncachedFirst`). So without terms and quotas, the order is LRU. The first term or
/// quota that is not the default takes O(pages), and 4 bytes a page.
///
/// Deterministic: the same calls give the same page ids. Nothing but `set_num_shards` and retention
/// allocates after construction. `allocate`, `hold` and `free` are O(pages given), whatever the
/// pool's size. Every call that throws leaves the pool as it was. Not thread-safe.
///
/// Invariant: a page other than 0 is in the free queue iff its `ref_count` is 0.
class PagePool {
 public:
  /// Makes pages `0 .. num_pages - 1`; `1, 2, 3, …` is the first order of allocation.
  ///
  /// Throws `std::invalid_argument` unless `num_pages >= 1`.
  explicit PagePool(PageId num_pages, FreeOrder free_order = FreeOrder::kLru);

  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  PageId num_pages() const { return static_cast<PageId>(pages_.size()); }
  PageId num_free_pages() const { return free_pages_.size(); }

  /// Free pages of `shard`. Throws `std::out_of_range` for a foreign shard.
  PageId num_free_pages(ShardId shard) const;

  const PageShards& shards() const { return free_pages_.shards(); }

  /// Deals the pages out to `num_shards` shards. Who holds what, what is cached and the order of
  /// eviction stay. O(pages), unless there are that many shards already.
  ///
  /// Throws `std::invalid_argument` unless `num_shards >= 1` divides `num_pages()`.
  void set_num_shards(std::int32_t num_shards);

  /// Pages whose content can be found, held or free, duplicates included.
  PageId num_cached_pages() const { return index_.num_pages(); }

  /// Distinct (digest, group) keys among the cached pages.
  PageId num_cached_keys() const { return index_.num_keys(); }

  /// Times a page lost its content because it was handed out again.
  std::int64_t num_evictions() const { return counts_.num_evicted; }

  /// What has happened to the pages so far.
  const PoolCounts& counts() const { return counts_; }

  /// Pages that somebody holds.
  PageId num_held_pages() const { return num_pages() - 1 - num_free_pages(); }

  /// How many requests hold `page`. Throws `std::out_of_range` for a foreign page.
  std::int32_t ref_count(PageId page) const;

  /// True iff the content of `page` can be found. Throws `std::out_of_range` for a foreign page.
  bool is_cached(PageId page) const {
    if (page != kNullPage) check_page("PagePool.is_cached", page);
    return at(page).is_cached();
  }

  /// The digest of the content of a cached page. Throws `std::out_of_range` for a foreign page,
  /// `std::invalid_argument` for one that is not cached.
  const PageHash& digest(PageId page) const;

  /// The group of a cached page, `kNoGroup` of others. Throws `std::out_of_range` for a foreign
  /// page.
  GroupId group(PageId page) const;

  /// The free pages, those first that are evicted first. O(free pages).
  std::vector<PageId> free_pages() const { return free_pages_.in_order(); }

  /// Fills `out` with the coldest free pages of `shard`, each held once; their old content is
  /// forgotten. Returns false and does nothing if fewer than `out.size()` pages are free there.
  ///
  /// Throws `std::out_of_range` for a foreign shard.
  [[nodiscard]] bool allocate(std::span<PageId> out, ShardId shard = kAnyShard);

  /// As above, for pages on a term, which count for its tenant until they lose their content. A
  /// tenant whose quota allows no further page gives up its own free pages first. A quota never
  /// makes this return false.
  ///
  /// Throws `std::out_of_range` for a foreign shard and for an `after` not in `[1, num_pages)`,
  /// `std::invalid_argument` for a term that is out of range.
  [[nodiscard]] bool allocate(std::span<PageId> out, const PageClaim& claim);

  /// Holds each page of `pages` once more, taking it out of the free queue if it was free.
  ///
  /// Throws `std::out_of_range` for a page not in `[1, num_pages)`.
  void hold(std::span<const PageId> pages);

  /// As above, and keeps each page on the stronger of `term` and its own. The tenant of a page
  /// stays. A page whose time had run out is on the default priority.
  ///
  /// Throws also `std::invalid_argument` for a term that is out of range.
  void hold(std::span<const PageId> pages, const RetentionTerm& term);

  /// Gives each page of `pages` back once, in the given order: the first becomes the coldest.
  ///
  /// Throws `std::out_of_range` for a page not in `[1, num_pages)`, `std::invalid_argument` for a
  /// page that nobody holds.
  void free(std::span<const PageId> pages);

  /// The oldest page of `shard` whose content has this digest in `group`, or `kNoPage`.
  PageId find(const PageHash& hash, GroupId group, ShardId shard = kAnyShard) const {
    if (shard == kAnyShard) return index_.find(hash, group);
    return index_.find(hash, group, shards().pages_of(shard));
  }

  /// Fetches from memory, without waiting for it, what `cache` and `find` of this key need first.
  void prefetch(const PageHash& hash, GroupId group) const { index_.prefetch(hash, group); }

  /// After `prefetch`: what `find` of this key needs then.
  void prefetch_record(const PageHash& hash, GroupId group) const {
    index_.prefetch_record(hash, group);
  }

  /// Makes the content of a held page findable.
  ///
  /// Throws `std::out_of_range` for a page not in `[1, num_pages)`, `std::invalid_argument` for a
  /// page that nobody holds or that is cached already, and for a group not in `[0,
  /// Page::kMaxGroups)`.
  void cache(PageId page, const PageHash& hash, GroupId group) {
    if (!can_cache(page, group)) [[unlikely]]
      refuse_cache(page, group);
    if (watch_ != nullptr) [[unlikely]]
      tell_cached(page, hash, group);
    index_.insert(page, hash, group);
    ++counts_.num_cached;
  }

  /// Forgets the content of every page. Returns false and does nothing while a page is held.
  bool reset_prefix_cache();

  /// What each cached page contains; of duplicates the oldest first. O(pages).
  std::vector<PageContent> contents() const;

  /// Puts the free pages in the given order, coldest first, and makes `contents` findable, as if
  /// added in that order. O(pages).
  ///
  /// Throws `std::invalid_argument` if a page is held or cached, unless `order` has each page but
  /// the null page once, and for contents of pages or groups that are not, or of a page twice.
  void restore(std::span<const PageId> order, std::span<const PageContent> contents);

  // --- retention ---

  /// What a page is kept on; the default term for free pages without content. Throws
  /// `std::out_of_range` for a foreign page.
  RetentionTerm term(PageId page) const;

  /// Whether a page was kept on another term than the default, or a tenant was given a quota.
  bool keeps_terms() const { return free_pages_.lanes() != nullptr; }

  /// The latest time given to `advance_time`; 0 before.
  std::int64_t now() const { return now_; }

  /// Tells the time, in the unit of the terms' `ttl`: pages that were freed `ttl` ago or more are
  /// from now on as if they had been freed on the default priority. O(log lanes) for each group of
  /// pages freed on one term at one time.
  ///
  /// Throws `std::invalid_argument` if `now` is less than before.
  void advance_time(std::int64_t now);

  /// How many pages a tenant may have without being evicted from first; none: any number.
  ///
  /// Throws `std::invalid_argument` for a negative tenant or quota.
  void set_tenant_quota(TenantId tenant, std::optional<PageId> max_pages);

  /// Pages held for a tenant, and free ones with content that it brought in.
  PageId num_tenant_pages(TenantId tenant) const;

  // --- what a pool tells of its pages ---

  /// Logs from now on what can be found and what cannot any more, beginning with what can be now.
  /// Of pages with equal content in a shard, the first that comes and the last that goes count. If
  /// more than `max_pages` pages are logged and not taken, the events are forgotten.
  ///
  /// Throws `std::invalid_argument` if events are on, and unless `max_pages >= 1`.
  void start_events(std::size_t max_pages);

  /// Throws `std::invalid_argument` if events are off.
  void stop_events();

  /// The events since the last call. If some were forgotten: that all was cleared, and then all
  /// that can be found now, without tokens; O(pages).
  ///
  /// Throws `std::invalid_argument` if events are off.
  EventBatch take_events();

  /// Null: events are off.
  EventLog* events() { return watch_ == nullptr ? nullptr : watch_->events.get(); }
  const EventLog* events() const { return watch_ == nullptr ? nullptr : watch_->events.get(); }

  /// Measures from now on, on a sample of the pages that are handed out, how long they keep their
  /// content, in the unit of `advance_time`: see `PageResidency`.
  ///
  /// Throws `std::invalid_argument` if it is done already, and as `PageResidency`.
  void start_residency(double sample_rate, const std::vector<std::int64_t>& bounds);

  /// Null: nothing is measured.
  const PageResidency* residency() const {
    return watch_ == nullptr ? nullptr : watch_->residency.get();
  }

  /// Throws `std::logic_error` naming what does not hold. For tests.
  void check_invariants() const;

 private:
  Page& at(PageId page) { return pages_[static_cast<std::size_t>(page)]; }
  const Page& at(PageId page) const { return pages_[static_cast<std::size_t>(page)]; }
  static bool is_group(GroupId group) { return group >= 0 && group < Page::kMaxGroups; }
  bool is_page(PageId page) const { return page > kNullPage && page < num_pages(); }
  void check_page(const char* operation, PageId page) const {
    if (!is_page(page)) [[unlikely]]
      refuse_page(operation, page);
  }
  void prefetch_page(PageId page) const {
    if (is_page(page)) __builtin_prefetch(&at(page));
  }
  [[noreturn]] void refuse_page(const char* operation, PageId page) const;
  bool can_cache(PageId page, GroupId group) const {
    return is_page(page) && at(page).ref_count > 0 && !at(page).is_cached() && is_group(group);
  }
  [[noreturn]] void refuse_free(PageId page) const;
  [[noreturn]] void refuse_cache(PageId page, GroupId group) const;
  void note_peak() { counts_.peak_held = std::max(counts_.peak_held, num_held_pages()); }
  void check_shard(const char* operation, ShardId shard) const;
  void hand_out(PageId page);
  RetentionLanes* lanes_for(const RetentionTerm& term);
  // See page_pool_watch.cc. All but the first two require `watch_`.
  PageWatch& watch();
  void tell_contents(EventLog& log) const;
  void tell_dealt_out();
  void tell_restored();
  void tell_handed_out(PageId page);
  void tell_held(std::span<const PageId> pages);
  void tell_cached(PageId page, const PageHash& hash, GroupId group);
  void tell_cleared();

  LargeArray<Page> pages_;
  FreePages free_pages_;
  PrefixIndex index_;
  PoolCounts counts_;
  std::int64_t now_ = 0;
  std::unique_ptr<PageWatch> watch_;  // null: nobody asked
};

}  // namespace pagedkv
