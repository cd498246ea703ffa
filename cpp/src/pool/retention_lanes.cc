#include "pagedkv/pool/retention_lanes.h"

#include <algorithm>
#include <cassert>
#include <numeric>

namespace pagedkv {
namespace {

template <typename Key>
std::optional<Key> first_of(const std::set<Key>& order) {
  return order.empty() ? std::nullopt : std::optional(*order.begin());
}

// Takes `from` out and puts `to` in, in the same memory if there are both.
template <typename Key>
void replace(std::set<Key>& order, const std::optional<Key>& from, const std::optional<Key>& to) {
  if (!from) {
    if (to) order.insert(*to);
    return;
  }
  auto node = order.extract(*from);
  assert(!node.empty());
  if (!to) return;
  node.value() = *to;
  order.insert(std::move(node));
}

}  // namespace

RetentionLanes::RetentionLanes(std::span<Page> pages, const PageShards& shards)
    : pages_(pages),
      shards_(shards),
      terms_(tenants_),
      tags_(pages.size(), kDefaultTerm),
      fronts_(static_cast<std::size_t>(shards.size())),
      sizes_(static_cast<std::size_t>(shards.size())) {
  for (const Page& page : pages) {
    if (page.ref_count == 0) continue;
    terms_.hold(kDefaultTerm);
    tenants_.add_pages(terms_.tenant(kDefaultTerm), 1);
  }
}

PageId RetentionLanes::size() const { return std::accumulate(sizes_.begin(), sizes_.end(), 0); }

// --- the order of the lanes ---

LaneId& RetentionLanes::open_lane(TermId term, ShardId shard) {
  const auto place = static_cast<std::size_t>(term * shards_.size() + shard);
  if (place >= open_lanes_.size()) open_lanes_.resize(place + 1, kNoLane);
  return open_lanes_[place];
}

RetentionLanes::LaneOrder& RetentionLanes::lanes_of(TenantSlot tenant, ShardId shard) {
  const auto place = static_cast<std::size_t>(tenant * shards_.size() + shard);
  if (place >= tenant_lanes_.size()) tenant_lanes_.resize(place + 1);
  return tenant_lanes_[place];
}

const RetentionLanes::LaneOrder* RetentionLanes::lanes_of(TenantSlot tenant, ShardId shard) const {
  const auto place = static_cast<std::size_t>(tenant * shards_.size() + shard);
  return place < tenant_lanes_.size() ? &tenant_lanes_[place] : nullptr;
}

std::optional<RetentionLanes::LaneKey> RetentionLanes::key_of(LaneId lane) const {
  const PageId coldest = lane_at(lane).queue.front();
  if (coldest == kNoPage) return std::nullopt;
  return LaneKey{terms_[lane_at(lane).term].priority, at(coldest).freed_at(), lane};
}

void RetentionLanes::move_in_order(LaneId lane, const std::optional<LaneKey>& from,
                                   const std::optional<LaneKey>& to) {
  if (from == to) return;
  const TenantSlot tenant = terms_.tenant(lane_at(lane).term);
  const ShardId shard = lane_at(lane).shard;
  LaneOrder& lanes = lanes_of(tenant, shard);
  const auto first_before = first_of(lanes);
  replace(lanes, from, to);
  const auto first = first_of(lanes);
  if (first == first_before) return;
  replace(fronts_[static_cast<std::size_t>(shard)][tenants_.is_over_quota(tenant)], first_before,
          first);
}

// Lets `change` change what a tenant has or may have, and its lanes' place in the order with it.
template <typename Change>
void RetentionLanes::change_tenant(TenantSlot tenant, Change change) {
  const bool was_over = tenants_.is_over_quota(tenant);
  change();
  if (tenants_.is_over_quota(tenant) == was_over) return;
  for (ShardId shard = 0; shard < shards_.size(); ++shard) {
    const auto first = first_of(lanes_of(tenant, shard));
    if (!first) continue;
    auto& fronts = fronts_[static_cast<std::size_t>(shard)];
    fronts[!was_over].insert(fronts[was_over].extract(*first));
  }
}

// --- lanes ---

LaneId RetentionLanes::lane_for(TermId term, ShardId shard, std::int64_t expires_at) {
  LaneId& open = open_lane(term, shard);
  if (open != kNoLane && lane_at(open).expires_at == expires_at) return open;
  if (free_lanes_.empty()) {
    free_lanes_.push_back(static_cast<LaneId>(lanes_.size()));
    lanes_.push_back({FreeQueue(pages_)});
  }
  open = free_lanes_.back();
  free_lanes_.pop_back();
  Lane& lane = lane_at(open);
  lane.term = term;
  lane.shard = shard;
  lane.expires_at = expires_at;
  terms_.hold(term);
  if (expires_at != kNever) ends_.emplace(expires_at, open);
  return open;
}

void RetentionLanes::destroy(LaneId lane) {
  Lane& gone = lane_at(lane);
  if (gone.expires_at != kNever) ends_.erase({gone.expires_at, lane});
  LaneId& open = open_lane(gone.term, gone.shard);
  if (open == lane) open = kNoLane;
  terms_.release(gone.term);
  free_lanes_.push_back(lane);
}

void RetentionLanes::link(PageId page, LaneId lane) {
  const auto from = key_of(lane);
  lane_at(lane).queue.push_back(page);
  tag(page) = lane;
  ++sizes_[static_cast<std::size_t>(lane_at(lane).shard)];
  move_in_order(lane, from, key_of(lane));
}

void RetentionLanes::unlink(PageId page, LaneId lane) {
  const auto from = key_of(lane);
  lane_at(lane).queue.remove(page);
  --sizes_[static_cast<std::size_t>(lane_at(lane).shard)];
  move_in_order(lane, from, key_of(lane));
}

// --- terms of held pages ---

const RetentionTerm& RetentionLanes::term_of(PageId page) const {
  const bool is_in_lane = at(page).ref_count == 0 && at(page).is_cached();
  return terms_[is_in_lane ? lane_at(tag(page)).term : tag(page)];
}

void RetentionLanes::start(PageId page, TermId term) {
  tag(page) = term;
  terms_.hold(term);
  const TenantSlot tenant = terms_.tenant(term);
  change_tenant(tenant, [&] { tenants_.add_pages(tenant, 1); });
}

void RetentionLanes::strengthen(PageId page, TermId term) {
  const TermId old = tag(page);
  if (!terms_[term].is_stronger_than(terms_[old])) return;
  RetentionTerm stronger = terms_[term];
  stronger.tenant = terms_[old].tenant;
  tag(page) = terms_.hold(stronger);
  terms_.release(old);
}

void RetentionLanes::forget(PageId page) {
  const TermId term = tag(page);
  const TenantSlot tenant = terms_.tenant(term);
  tag(page) = kDefaultTerm;
  change_tenant(tenant, [&] { tenants_.add_pages(tenant, -1); });
  terms_.release(term);
}

// --- free pages ---

void RetentionLanes::push(PageId page) {
  const TermId term = tag(page);
  const std::int64_t ttl = terms_[term].ttl;
  const std::int64_t expires_at = ttl < kNever - now_ ? now_ + ttl : kNever;
  link(page, lane_for(term, shards_.shard_of(page), expires_at));
  terms_.release(term);  // the lane holds it
}

void RetentionLanes::remove(PageId page) {
  const LaneId lane = tag(page);
  const TermId term = lane_at(lane).term;
  terms_.hold(term);
  unlink(page, lane);
  tag(page) = term;
  if (lane_at(lane).queue.size() == 0) destroy(lane);
}

RetentionLanes::Choice RetentionLanes::choose(ShardId shard, TermId term) const {
  const ShardId begin = shard == kAnyShard ? 0 : shard;
  const ShardId end = shard == kAnyShard ? shards_.size() : shard + 1;
  const TenantSlot tenant = terms_.tenant(term);
  std::optional<LaneKey> own;
  std::optional<LaneKey> over;
  std::optional<LaneKey> within;
  const auto take_first = [](std::optional<LaneKey>& best, const LaneOrder& order) {
    if (!order.empty() && (!best || *order.begin() < *best)) best = *order.begin();
  };
  for (ShardId i = begin; i < end; ++i) {
    const LaneOrder* lanes = tenants_.is_full(tenant) ? lanes_of(tenant, i) : nullptr;
    if (lanes != nullptr) take_first(own, *lanes);
    take_first(over, fronts_[static_cast<std::size_t>(i)][1]);
    take_first(within, fronts_[static_cast<std::size_t>(i)][0]);
  }
  if (own) return {own->lane, true};
  if (over) return {over->lane, true};
  return {within ? within->lane : kNoLane, false};
}

bool RetentionLanes::goes_after(const Choice& choice, std::int64_t freed_at) const {
  if (choice.is_forced) return false;
  if (choice.lane == kNoLane) return true;
  const Lane& lane = lane_at(choice.lane);
  return terms_[lane.term].priority != RetentionTerm::kDefaultPriority ||
         freed_at < at(lane.queue.front()).freed_at();
}

PageId RetentionLanes::pop(const Choice& choice) {
  const PageId page = lane_at(choice.lane).queue.front();
  remove(page);
  forget(page);
  return page;
}

// --- what may change the order ---

void RetentionLanes::advance_time(std::int64_t now) {
  assert(now >= now_);
  now_ = now;
  while (!ends_.empty() && ends_.begin()->first <= now) expire(ends_.begin()->second);
}

void RetentionLanes::expire(LaneId lane) {
  const auto from = key_of(lane);
  Lane& expired = lane_at(lane);
  ends_.erase({expired.expires_at, lane});
  LaneId& open = open_lane(expired.term, expired.shard);
  if (open == lane) open = kNoLane;
  const TermId old = expired.term;
  expired.term = terms_.hold({.tenant = terms_[old].tenant});
  expired.expires_at = kNever;
  move_in_order(lane, from, key_of(lane));
  LaneId& merged = open_lane(expired.term, expired.shard);
  if (merged == kNoLane) merged = lane;
  terms_.release(old);
}

void RetentionLanes::set_quota(TenantId tenant, PageId max_pages) {
  const TenantSlot slot = tenants_.hold(tenant);
  const bool had_quota = tenants_.quota(slot) != Tenants::kNoQuota;
  change_tenant(slot, [&] { tenants_.set_quota(slot, max_pages); });
  // One holder more for as long as there is a quota.
  if (had_quota) tenants_.release(slot);
  if (max_pages == Tenants::kNoQuota) tenants_.release(slot);
}

PageId RetentionLanes::num_pages_of(TenantId tenant) const {
  const TenantSlot slot = tenants_.find(tenant);
  return slot < 0 ? 0 : tenants_.num_pages(slot);
}

// --- for all pages at once ---

std::vector<RetentionLanes::Rank> RetentionLanes::ranks() const {
  std::vector<Rank> ranks;
  for (const Lane& lane : lanes_) {
    const bool is_over = tenants_.is_over_quota(terms_.tenant(lane.term));
    for (PageId page = lane.queue.front(); page != kNoPage; page = lane.queue.next(page)) {
      ranks.push_back({is_over, terms_[lane.term].priority, at(page).freed_at(), page});
    }
  }
  return ranks;
}

void RetentionLanes::set_shards(const PageShards& shards) {
  std::vector<Rank> order = ranks();
  std::ranges::stable_sort(order, {}, &Rank::freed_at);
  struct From {
    TermId term;
    std::int64_t expires_at;
  };
  std::vector<From> from;
  from.reserve(order.size());
  for (const Rank& rank : order) {
    const Lane& lane = lane_at(tag(rank.page));
    from.push_back({lane.term, lane.expires_at});
    remove(rank.page);
  }
  shards_ = shards;
  open_lanes_.clear();
  tenant_lanes_.clear();
  fronts_.assign(static_cast<std::size_t>(shards.size()), {});
  sizes_.assign(static_cast<std::size_t>(shards.size()), 0);
  for (std::size_t i = 0; i < order.size(); ++i) {
    const PageId page = order[i].page;
    link(page, lane_for(from[i].term, shards.shard_of(page), from[i].expires_at));
    terms_.release(from[i].term);
  }
}

void RetentionLanes::clear() {
  for (const Rank& rank : ranks()) {
    remove(rank.page);
    forget(rank.page);
  }
}

}  // namespace pagedkv
