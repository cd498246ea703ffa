#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pagedkv/hash/page_hasher.h"
#include "pagedkv/manager/coordinator.h"
#include "pagedkv/manager/manager_stats.h"
#include "pagedkv/manager/page_map.h"
#include "pagedkv/manager/page_row.h"
#include "pagedkv/manager/pins.h"
#include "pagedkv/manager/request.h"
#include "pagedkv/manager/request_state.h"
#include "pagedkv/pool/page_pool.h"
#include "pagedkv/spec/cache_group_spec.h"
#include "pagedkv/types.h"

namespace pagedkv {

class ManagerObserver;

/// What a manager can do besides the plain thing.
struct CacheManagerOptions {
  /// Whether requests find each other's pages.
  bool enable_caching = true;
  /// Leave the last `prefix_unit()` tokens of every hit to be computed again: draft heads in the
  /// manner of EAGLE need the hidden states of the tokens right before those they guess.
  bool use_eagle = false;
  /// Names the content of pages.
  PageHasher hasher = PageHasher();
  /// Tokens of the pages that requests are hashed in: see `Coordinator`.
  std::optional<std::int32_t> hash_page_size = std::nullopt;
  /// Data-parallel shards of the pool, which divide its pages.
  std::int32_t num_shards = 1;
  /// Commit lets go of a page whose content another page holds already, in favour of that one: the
  /// row of the page table changes then. Otherwise both stay until the requests are freed.
  bool deduplicate = false;
  /// Give the same pages as EasyDeL 0.3.0, one by one, also where that is more than needed: EAGLE
  /// drops tokens for each kind of group, and a chunked group keeps its last cached page.
  bool as_easydel = false;
  /// Where freed pages go.
  FreeOrder free_order = FreeOrder::kLru;
  /// Make rows of few contiguous runs of pages, as far as that evicts no other content than LRU
  /// would: see `PageClaim`.
  bool prefer_contiguous = false;
};

/// What a request needs room for.
struct Demand {
  std::int32_t num_new_tokens = 0;        ///< After those computed and those cached.
  std::int32_t num_cached_tokens = 0;     ///< Of a new request: its prefix from the cache.
  std::int32_t num_lookahead_tokens = 0;  ///< Draft tokens after the new ones.
  /// Where new pages come from, if the request holds none in another shard.
  ShardId shard = kAnyShard;
  /// Stay in the shard that the request's pages are in, if that is one.
  bool stays_in_shard = true;
  /// Pages that must stay free, if the request takes any: for a new request, what the running ones
  /// are going to need.
  std::int32_t watermark_pages = 0;
  /// Refuse unless all tokens of the request would fit now, as far as each group keeps them, though
  /// room is made for the new ones alone. Its later steps are taken to be no longer than this one.
  /// The idea is vLLM's (`full_sequence_must_fit`).
  bool full_sequence_must_fit = false;
  /// The new tokens need not be known yet, and those past `max_model_len` get no room: for
  /// schedulers that plan a step before they know what the last one said.
  bool may_be_ahead = false;
  /// The pages of the cached prefix, as `find_prefix` gave them, to be taken out; null: look them
  /// up.
  GroupPages* prefix = nullptr;
};

/// Decides which page every token of every request lives in.
///
/// A request's life: `match` finds the longest cached prefix, `allocate` takes it and makes room
/// for the tokens of the next step, `commit` says that their K/V is computed (only now can others
/// find it), and so on with `allocate` and `commit`; `free` gives the pages back.
///
/// Groups may be of any mix of attention types and page sizes; all share one pool. Pages that a
/// type does not need any more are given back by `allocate`, which leaves the null page in the row.
///
/// Single-threaded by contract. Deterministic: the same calls give the same page ids. A call that
/// throws, and an `allocate` that returns false, leave everything as it was.
class CacheManager {
 public:
  /// `num_pages` counts the null page.
  ///
  /// Throws `std::invalid_argument` for no groups, sizes < 1, a hash page size that does not
  /// divide every group's, pools whose slots (`num_pages * page_size`) do not fit in int32, and
  /// `as_easydel` with options that give other pages than EasyDeL.
  CacheManager(PageId num_pages, std::span<const CacheGroupSpec> kv_cache_groups,
               std::int32_t max_model_len, const CacheManagerOptions& options = {});

  /// Requests that still hold pages are let go; they can go to another manager.
  ~CacheManager();

  CacheManager(const CacheManager&) = delete;
  CacheManager& operator=(const CacheManager&) = delete;

  const PagePool& pool() const { return pool_; }
  GroupId num_groups() const { return coordinator_.num_groups(); }
  std::int32_t max_model_len() const { return max_model_len_; }
  bool enable_caching() const { return options_.enable_caching; }
  bool use_eagle() const { return options_.use_eagle; }
  bool as_easydel() const { return options_.as_easydel; }
  bool deduplicate() const { return options_.deduplicate; }
  const PageHasher& hasher() const { return options_.hasher; }

  /// As they were given.
  const CacheManagerOptions& options() const { return options_; }

  /// What the layers of each group keep.
  std::span<const AnyCacheSpec> specs() const { return specs_; }

  /// Tells `observer` of each call from now on; nobody, if it is null. It must outlive the
  /// manager, or be taken back.
  void set_observer(ManagerObserver* observer) { observer_ = observer; }

  bool is_observed() const { return observer_ != nullptr; }

  /// Tokens of the pages that requests are hashed in.
  std::int32_t hash_page_size() const { return coordinator_.hash_page_size(); }

  /// What every shared prefix is a multiple of, in tokens.
  std::int64_t prefix_unit() const { return coordinator_.prefix_unit(); }

  /// What the attention type of `group` asks for. Throws `std::out_of_range` for a foreign group.
  const GroupPolicy& policy(GroupId group) const;

  /// Requests that hold pages.
  std::int32_t num_requests() const;

  /// Whether `request` holds pages of this manager.
  bool holds(const Request& request) const { return request.owner_ == this; }

  /// What is held now, and what has happened so far.
  ManagerStats stats() const;

  /// The requests that hold pages, and how many each.
  std::vector<Holding> holdings() const;

  /// Who has which page now. O(pages).
  PageMap page_map() const;

  /// Deals the pages out to `num_shards` shards. O(pages), unless there are that many already.
  ///
  /// Throws `std::invalid_argument` unless `num_shards >= 1` divides the number of pages.
  void set_num_shards(std::int32_t num_shards);

  /// Tokens of the longest prefix of `request` that is cached in every group, as far as each needs
  /// it: a multiple of `prefix_unit()`, less than `num_tokens()` (one token is left to compute the
  /// next from). 0 for a request that holds pages. Holds nothing: pages may go until `allocate`.
  /// Changes nothing but the digests of `request`, and scratch memory.
  ///
  /// Throws `std::invalid_argument` for extra keys that the hasher cannot take, if caching is on,
  /// `std::out_of_range` for a foreign shard.
  std::int32_t match(Request& request, ShardId shard = kAnyShard);

  /// `match` in each shard: fills `num_tokens`, one entry a shard.
  ///
  /// Throws as `match`. Requires as many entries as there are shards.
  void match_shards(Request& request, std::span<std::int32_t> num_tokens);

  /// As `match`, but of at most `max_tokens` tokens, which may be more than `request` knows, and
  /// for requests that hold pages too. Replaces `pages` by the pages of the prefix.
  std::int32_t find_prefix(Request& request, std::int32_t max_tokens, ShardId shard,
                           GroupPages& pages) const;

  /// Looks up again what was found before: the longest cached prefix of at most `num_tokens`
  /// tokens, none of which is to be computed again. Returns its tokens and replaces `pages` by its
  /// pages. Throws as `match`.
  std::int32_t find_again(Request& request, std::int32_t num_tokens, ShardId shard,
                          GroupPages& pages) const;

  /// Throws what `allocate` throws for bad arguments, whatever is in the cache.
  void check_demand(const Request& request, const Demand& demand) const;

  /// Whether `allocate` would neither give the request pages nor take any back, nor fail. Most
  /// steps end in a page that the request has, and no window leaves one behind: then there is
  /// nothing to plan.
  bool is_quiet(const Request& request, const Demand& demand) const {
    if (request.owner_ != this || demand.num_new_tokens < 1 || demand.num_lookahead_tokens < 0 ||
        demand.num_cached_tokens != 0) {
      return false;
    }
    const std::int64_t num_tokens =
        std::int64_t{request.num_computed_tokens()} + demand.num_new_tokens;
    return num_tokens + demand.num_lookahead_tokens <= request.bounds_.num_quiet_tokens &&
           (demand.may_be_ahead || num_tokens <= request.num_tokens());
  }

  /// `allocate` where it is quiet, in a manager that is not observed.
  void make_quiet_room(Request& request, const Demand& demand) {
    request.bounds_.num_allocated_tokens = std::max(
        request.bounds_.num_allocated_tokens,
        request.num_computed_tokens() + demand.num_new_tokens + demand.num_lookahead_tokens);
  }

  /// Throws what `commit` throws.
  void check_commit(const Request& request, std::int64_t num_computed_tokens) const {
    if (request.owner_ != this || num_computed_tokens < request.num_computed_tokens() ||
        num_computed_tokens > request.bounds_.num_allocated_tokens ||
        num_computed_tokens > request.num_tokens()) [[unlikely]] {
      refuse_commit(request, num_computed_tokens);
    }
  }

  /// Whether so many computed tokens fill a page that can be cached and is not.
  static bool fills_page(const Request& request, std::int64_t num_computed_tokens) {
    return num_computed_tokens >= request.bounds_.next_full_tokens;
  }

  /// Fetches from memory, without waiting for it, what `commit` of the next full page of a request
  /// needs, if its digest is known. Requires that the request holds pages.
  void prefetch_next_full(const Request& request) const;

  /// `commit` of what `check_commit` has not refused.
  bool commit_checked(Request& request, std::int32_t num_computed_tokens) {
    if (observer_ != nullptr || fills_page(request, num_computed_tokens)) {
      return commit_full_pages(request, num_computed_tokens);
    }
    request.num_computed_tokens_ = num_computed_tokens;
    return false;
  }

  /// Makes room for the new tokens after those computed, and for draft tokens after those, as far
  /// as `max_model_len()` allows. The first call of a request takes the cached tokens from the
  /// cache, as `match` found them; they count as computed. Returns false if too few pages are free.
  ///
  /// New tokens may also be ones that somebody else computes: `commit` them when their K/V has
  /// arrived.
  ///
  /// Throws `std::invalid_argument` if `num_new_tokens < 1`, `num_lookahead_tokens < 0` or
  /// `watermark_pages < 0`; if the
  /// new tokens would be more than the request has, or than `max_model_len()`; for extra keys that
  /// the hasher cannot take, if pages are to be found by others; if `num_cached_tokens` is not a
  /// multiple of `prefix_unit()`, is not 0 for a request that holds pages, or is more than is
  /// cached (now); if the given prefix is not one of the request; if the request holds pages of
  /// another manager. Throws `std::out_of_range` for a foreign shard.
  [[nodiscard]] bool allocate(Request& request, const Demand& demand);

  [[nodiscard]] bool allocate(Request& request, std::int32_t num_new_tokens,
                              std::int32_t num_cached_tokens = 0,
                              std::int32_t num_lookahead_tokens = 0) {
    return allocate(request, {.num_new_tokens = num_new_tokens,
                              .num_cached_tokens = num_cached_tokens,
                              .num_lookahead_tokens = num_lookahead_tokens});
  }

  /// Says that the K/V of the first `num_computed_tokens` tokens is in the pages, or will be
  /// before anything that is started later reads them. Full pages can be found from now on. Returns
  /// whether a row of the page table has changed, which it may with `deduplicate`.
  ///
  /// Throws `std::invalid_argument` if the request holds no pages, if there is no room for that
  /// many tokens or it has fewer, or if it is fewer than before.
  bool commit(Request& request, std::int32_t num_computed_tokens);

  /// The first half of `commit`: nobody else finds the pages. Pages that are not needed any more
  /// are given back. May also be fewer tokens than before, when guesses were rejected.
  ///
  /// Throws `std::invalid_argument` if the request holds no pages, if there is no room for that
  /// many tokens, or for a negative number.
  void set_num_computed_tokens(Request& request, std::int32_t num_computed_tokens);

  /// The second half of `commit`: makes the pages that the first `num_tokens` tokens fill
  /// findable, whether those are computed or will be before anybody reads them. The step that
  /// computes them ends after `step_end` tokens, which may be more: a layer with a state has only
  /// that one. Never deduplicates, since the step may not have run yet.
  ///
  /// Throws as `commit`, but not for fewer than before; as if it were `operation`.
  void cache(Request& request, std::int32_t num_tokens, std::int64_t step_end,
             const char* operation = "CacheManager.cache");

  /// As above, where the step ends with `num_tokens`.
  void cache(Request& request, std::int32_t num_tokens) { cache(request, num_tokens, num_tokens); }

  /// Lets `child` go on from the computed tokens of `parent`, for beam search and for several
  /// answers to one prompt: it holds the pages that are final, and pages of its own in place of
  /// those that will be written to. `copies` is replaced by one list a group: copy each source to
  /// its target before the next step of either request. Returns false, and does nothing, if too
  /// few pages are free in the parent's shard. O(pages of the parent).
  ///
  /// The pages are not hashed again, nor need they be cached. Tokens that were computed when a
  /// request was forked cannot be truncated.
  ///
  /// Throws `std::invalid_argument` if `parent` holds no pages of this manager or has no computed
  /// tokens; if `child` holds pages, does not begin with those tokens, or differs in extra keys or
  /// encoder tokens.
  [[nodiscard]] bool fork(Request& parent, Request& child, std::vector<PageCopies>& copies);

  /// Throws what `fork` throws.
  void check_fork(const Request& parent, const Request& child) const;

  /// Gives all pages of `request` back; its last page is evicted first. O(its pages).
  ///
  /// Throws `std::invalid_argument` if the request holds no pages: freed twice, or never allocated.
  void free(Request& request);

  /// The page table row of `request` in `group`: page `i` is for tokens from `i` times the group's
  /// page size on; the null page where the type needs none. Valid until the next call that changes
  /// the request.
  ///
  /// Throws `std::invalid_argument` if the request holds no pages, `std::out_of_range` for a
  /// foreign group.
  std::span<const PageId> page_ids(const Request& request, GroupId group) const {
    if (request.owner_ != this || group < 0 || group >= num_groups()) [[unlikely]] {
      refuse_page_ids(request, group);
    }
    return row_of(request, group).pages();
  }

  /// Leading pages of `request` in `group` that at least `num_requests` requests hold, in a group
  /// that reads its whole prefix; 0 in others.
  ///
  /// Throws as `page_ids` does, and `std::invalid_argument` if `num_requests < 1`.
  std::int32_t num_common_prefix_pages(const Request& request, GroupId group,
                                       std::int32_t num_requests) const;

  /// A number that is another one after the page table rows of `request` have changed. Throws as
  /// `page_ids`.
  std::int32_t num_changes(const Request& request) const;

  /// Tokens there is room for in the pages that `request` holds; 0 if none.
  std::int32_t num_allocated_tokens(const Request& request) const {
    return request.owner_ == this ? request.bounds_.num_allocated_tokens : 0;
  }

  /// All cached content, and in which order the pages are evicted, as bytes: docs/snapshots.md has
  /// the format. What is held counts as if every request was freed now, in the order of their
  /// places in the manager. O(pages).
  std::vector<std::byte> snapshot() const;

  /// Makes findable what was cached when `snapshot` was made, and evicts in the order it has. The
  /// tensors must have in each page what they had then. O(pages).
  ///
  /// Throws `std::invalid_argument` for bytes that are no whole snapshot, if it was made with other
  /// pages, groups or hashing, or if anything is held or cached here; then nothing is done.
  void restore(std::span<const std::byte> snapshot);

  // --- retention: see also Request::retain ---

  /// Keeps the pages of `request` that others can find from being evicted, also when the request
  /// has gone, until `unpin`. A pin holds its pages, as a request does. O(pages of the request).
  ///
  /// Throws `std::invalid_argument` if the request holds no pages, or none that can be found.
  PinId pin(Request& request);

  /// Gives the pages of a pin back; the last of them are evicted first.
  ///
  /// Throws `std::invalid_argument` for a pin that is not there.
  void unpin(PinId pin);

  const Pins& pins() const { return pins_; }

  /// As those of `PagePool`.
  void advance_time(std::int64_t now);
  void set_tenant_quota(TenantId tenant, std::optional<PageId> max_pages);

  // --- what a manager tells of its pages: see PagePool ---

  void start_events(std::size_t max_pages) { pool_.start_events(max_pages); }
  void stop_events() { pool_.stop_events(); }
  EventBatch take_events() { return pool_.take_events(); }
  void start_residency(double sample_rate, const std::vector<std::int64_t>& bounds) {
    pool_.start_residency(sample_rate, bounds);
  }

  /// Forgets all cached content. Returns false and does nothing while a request or a pin holds
  /// pages.
  bool reset_prefix_cache();

  /// Throws `std::logic_error` naming what does not hold. For tests.
  void check_invariants() const;

 private:
  RequestState& state_of(const char* operation, const Request& request);
  const RequestState& state_of(const char* operation, const Request& request) const;
  const PageRow& row_of(const Request& request, GroupId group) const {
    return rows_[static_cast<std::size_t>(request.state_) * static_cast<std::size_t>(num_groups()) +
                 static_cast<std::size_t>(group)];
  }
  PageRow& row_of(const Request& request, GroupId group) {
    return const_cast<PageRow&>(std::as_const(*this).row_of(request, group));
  }
  /// Those of all groups. Valid until a request is attached.
  std::span<const PageRow> rows_of(const Request& request) const {
    return {&row_of(request, 0), static_cast<std::size_t>(num_groups())};
  }
  std::span<PageRow> rows_of(const Request& request) {
    return {&row_of(request, 0), static_cast<std::size_t>(num_groups())};
  }
  void check_shard(const char* operation, ShardId shard) const;
  static void check_room(const char* operation, const Request& request, std::int64_t num_tokens);
  static void check_known(const char* operation, const Request& request, std::int64_t num_tokens);
  void refuse_commit(const Request& request, std::int64_t num_computed_tokens) const;
  [[noreturn]] void refuse_page_ids(const Request& request, GroupId group) const;
  bool commit_full_pages(Request& request, std::int32_t num_computed_tokens);
  bool cache_full_pages(Request& request, std::int32_t num_tokens, std::int64_t step_end,
                        bool deduplicate);
  void check_prefix(Request& request, const Demand& demand) const;
  void start_rows(Request& request, const Demand& demand);
  void note_change(Request& request);
  std::int32_t first_needed_page(const PageRow& row, GroupId group,
                                 std::int32_t num_computed_tokens) const;
  void note_next_full(Request& request) const;
  std::int64_t num_pages_taken(const PageRow& row, const PageRow::Growth& growth, bool is_new,
                               const PageRange& range) const;
  bool has_room(const Request& request, std::span<const PageRow> rows, const Demand& demand,
                ShardId shard) const;
  RowClaim claim_for(const Request& request, GroupId group, ShardId shard) const;
  RequestState& attach(Request& request);
  void detach(Request& request);
  void restore_now(std::span<const std::byte> snapshot);
  std::vector<PageId> order_of_eviction() const;
  static void append_last_first(std::span<const PageRow> rows, std::vector<PageId>& pages);

  CacheManagerOptions options_;
  std::vector<AnyCacheSpec> specs_;
  Coordinator coordinator_;
  PagePool pool_;
  Pins pins_;
  std::int32_t max_model_len_;
  std::vector<RequestState> states_;
  std::vector<PageRow>
      rows_;  // those of a request side by side, one a group, in the order of states_
  std::vector<std::int32_t> free_states_;
  mutable ManagerObserver* observer_ = nullptr;
  std::int32_t peak_requests_ = 0;
  std::int64_t num_failed_allocations_ = 0;
  std::int64_t num_admitted_ = 0;
  std::int64_t num_query_tokens_ = 0;
  std::int64_t num_hit_tokens_ = 0;
  GroupPages hit_;                        // scratch of match and allocate
  std::vector<PageRow> new_rows_;         // scratch of allocate: the rows of a new request
  std::vector<PageRow::Growth> growths_;  // scratch of allocate
  std::vector<PageId> scratch_;           // scratch of free
};

}  // namespace pagedkv
