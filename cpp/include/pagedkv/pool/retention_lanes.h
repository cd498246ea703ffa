#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "pagedkv/pool/free_queue.h"
#include "pagedkv/pool/page.h"
#include "pagedkv/pool/page_shards.h"
#include "pagedkv/pool/retention_terms.h"
#include "pagedkv/pool/tenants.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// Place of a lane in `RetentionLanes`.
using LaneId = std::int32_t;

/// The free pages that have content, in the order in which they are to be evicted, and the terms of
/// all pages. Only made for pools that use retention.
///
/// A *lane* is an LRU queue of the pages of one shard that were freed on one term and run out at
/// one time. First come pages of tenants over their quota, then lower priorities, then pages freed
/// earlier. When a lane runs out, only its priority changes: since lanes of equal priority are
/// merged by the time their coldest page was freed, its pages are at once where they would be
/// had they been free on the default priority all along.
///
/// Keeps one int32 a page, and about 300 bytes a lane. Operations are O(log lanes), whatever the
/// number of pages; `advance_time` is so for each lane that runs out; `set_shards`, `clear` and
/// checks are O(pages). The records must outlive this. Not thread-safe.
///
/// Invariant: a free page with content is in a lane of its shard; tenants count the pages that are
/// held on their terms and those in their lanes; each non-empty lane is in the order once.
class RetentionLanes {
 public:
  static constexpr LaneId kNoLane = -1;

  /// Starts with all held pages on the default term, and without free pages.
  RetentionLanes(std::span<Page> pages, const PageShards& shards);

  RetentionLanes(const RetentionLanes&) = delete;
  RetentionLanes& operator=(const RetentionLanes&) = delete;

  /// Free pages with content, of all shards or one.
  PageId size() const;
  PageId size(ShardId shard) const { return sizes_[static_cast<std::size_t>(shard)]; }

  // --- terms ---

  /// The number of a checked term, until it is released.
  TermId hold_term(const RetentionTerm& term) { return terms_.hold(term); }
  void release_term(TermId term) { terms_.release(term); }

  /// The term that a held page will be free on, or a free page with content is free on.
  const RetentionTerm& term_of(PageId page) const;

  /// Puts a page that was handed out, and has no content, on a term.
  void start(PageId page, TermId term);

  /// Keeps a held page on `term` from now on, if that is stronger than the page's. Its tenant
  /// stays: the one that brought the page in.
  void strengthen(PageId page, TermId term);

  // --- free pages ---

  /// Adds a page with content, freed just now: `freed_at` is later than that of all pages here.
  void push(PageId page);

  /// Takes a page with content out, to be held on the term it was free on.
  void remove(PageId page);

  /// Forgets the term of a page without content, to be free.
  void forget(PageId page);

  /// Which page goes first, were it only for those that have content.
  struct Choice {
    LaneId lane = kNoLane;
    bool is_forced = false;  ///< Because of a quota: pages without content are no way out.
  };

  /// The choice in `shard` for a page that is to be on `term`. O(shards) for `kAnyShard`.
  Choice choose(ShardId shard, TermId term) const;

  /// Whether a page without content goes before the choice: it does unless the choice is forced, or
  /// is of the default priority and colder.
  bool goes_after(const Choice& choice, std::int64_t freed_at) const;

  /// Takes the coldest page out of the chosen lane, to be handed out.
  PageId pop(const Choice& choice);

  // --- what may change the order ---

  /// The latest time given.
  std::int64_t now() const { return now_; }

  /// Gives pages that have run out the default priority. Requires `now >= this->now()`.
  void advance_time(std::int64_t now);

  /// Sets the quota of a tenant, or `Tenants::kNoQuota`.
  void set_quota(TenantId tenant, PageId max_pages);

  /// Pages held for the tenant, and free ones with content that it brought in.
  PageId num_pages_of(TenantId tenant) const;

  // --- for all pages at once ---

  /// Deals the pages out to other shards.
  void set_shards(const PageShards& shards);

  /// Takes all pages out, and forgets their terms.
  void clear();

  /// A free page with content, and what it is ordered by.
  struct Rank {
    bool is_over_quota = false;
    std::int32_t priority = 0;
    std::int64_t freed_at = 0;
    PageId page = kNoPage;
  };

  /// All pages, in no order.
  std::vector<Rank> ranks() const;

  /// Throws `std::logic_error` naming what does not hold. For tests.
  void check_invariants() const;

 private:
  static constexpr std::int64_t kNever = RetentionTerm::kForever;

  struct Lane {
    FreeQueue queue;
    TermId term = kDefaultTerm;
    ShardId shard = 0;
    std::int64_t expires_at = kNever;
  };

  struct LaneKey {
    std::int32_t priority = 0;
    std::int64_t freed_at = 0;  // of the coldest page
    LaneId lane = kNoLane;

    auto operator<=>(const LaneKey&) const = default;
  };
  using LaneOrder = std::set<LaneKey>;

  Page& at(PageId page) { return pages_[static_cast<std::size_t>(page)]; }
  const Page& at(PageId page) const { return pages_[static_cast<std::size_t>(page)]; }
  Lane& lane_at(LaneId lane) { return lanes_[static_cast<std::size_t>(lane)]; }
  const Lane& lane_at(LaneId lane) const { return lanes_[static_cast<std::size_t>(lane)]; }
  std::int32_t& tag(PageId page) { return tags_[static_cast<std::size_t>(page)]; }
  std::int32_t tag(PageId page) const { return tags_[static_cast<std::size_t>(page)]; }
  LaneId& open_lane(TermId term, ShardId shard);
  LaneOrder& lanes_of(TenantSlot tenant, ShardId shard);
  const LaneOrder* lanes_of(TenantSlot tenant, ShardId shard) const;
  std::optional<LaneKey> key_of(LaneId lane) const;
  LaneId lane_for(TermId term, ShardId shard, std::int64_t expires_at);
  void link(PageId page, LaneId lane);
  void unlink(PageId page, LaneId lane);
  void destroy(LaneId lane);
  void move_in_order(LaneId lane, const std::optional<LaneKey>& from,
                     const std::optional<LaneKey>& to);
  void expire(LaneId lane);
  template <typename Change>
  void change_tenant(TenantSlot tenant, Change change);

  std::span<Page> pages_;
  PageShards shards_;
  Tenants tenants_;
  RetentionTerms terms_;
  std::vector<std::int32_t> tags_;  // of a held page its term, of one in a lane the lane
  std::vector<Lane> lanes_;
  std::vector<LaneId> free_lanes_;
  std::vector<LaneId> open_lanes_;                // [term][shard]: where pages go now
  std::vector<LaneOrder> tenant_lanes_;           // [tenant][shard]
  std::vector<std::array<LaneOrder, 2>> fronts_;  // [shard][over quota]: first lane of each tenant
  std::vector<PageId> sizes_;                     // [shard]
  std::set<std::pair<std::int64_t, LaneId>> ends_;  // lanes that run out, soonest first
  std::int64_t now_ = 0;
};

}  // namespace pagedkv
