#include "pagedkv/error.h"
#include "pagedkv/pool/retention_lanes.h"

// What callers of the lanes can rely on.
namespace pagedkv {

void RetentionLanes::check_invariants() const {
  constexpr auto kName = "RetentionLanes";
  std::vector<std::int32_t> num_holders(static_cast<std::size_t>(terms_.num_ids()), 0);
  std::vector<PageId> num_pages(static_cast<std::size_t>(tenants_.num_slots()), 0);
  std::vector<PageId> sizes(sizes_.size(), 0);
  ++num_holders[kDefaultTerm];
  for (std::size_t page = 1; page < pages_.size(); ++page) {
    if (pages_[page].ref_count == 0) continue;
    ++num_holders.at(static_cast<std::size_t>(tags_[page]));
    ++num_pages[static_cast<std::size_t>(terms_.tenant(tags_[page]))];
  }
  std::size_t num_ends = 0;
  std::size_t num_ordered = 0;
  for (LaneId id = 0; id < static_cast<LaneId>(lanes_.size()); ++id) {
    const Lane& lane = lane_at(id);
    lane.queue.check_invariants();
    if (lane.queue.size() == 0) continue;
    ++num_holders[static_cast<std::size_t>(lane.term)];
    const TenantSlot tenant = terms_.tenant(lane.term);
    num_pages[static_cast<std::size_t>(tenant)] += lane.queue.size();
    sizes[static_cast<std::size_t>(lane.shard)] += lane.queue.size();
    for (PageId page = lane.queue.front(); page != kNoPage; page = lane.queue.next(page)) {
      const PageId next = lane.queue.next(page);
      if (tag(page) != id) throw_broken(kName, "page ", page, " does not name lane ", id);
      if (!at(page).is_cached()) throw_broken(kName, "page ", page, " has no content");
      if (shards_.shard_of(page) != lane.shard) {
        throw_broken(kName, "page ", page, " is in a lane of shard ", lane.shard);
      }
      if (next != kNoPage && at(next).freed_at() <= at(page).freed_at()) {
        throw_broken(kName, "page ", next, " is younger than page ", page, " before it");
      }
    }
    const LaneOrder* order = lanes_of(tenant, lane.shard);
    if (order == nullptr || !order->contains(*key_of(id))) {
      throw_broken(kName, "lane ", id, " is not in the order of its tenant");
    }
    const auto& fronts = fronts_[static_cast<std::size_t>(lane.shard)];
    if (!fronts[tenants_.is_over_quota(tenant)].contains(*order->begin())) {
      throw_broken(kName, "tenant of lane ", id, " is not in the order of tenants");
    }
    if (lane.expires_at != kNever) {
      ++num_ends;
      if (lane.expires_at <= now_ || !ends_.contains({lane.expires_at, id})) {
        throw_broken(kName, "lane ", id, " runs out at ", lane.expires_at, ", now is ", now_);
      }
    }
    num_ordered += *key_of(id) == *order->begin();
  }
  std::size_t num_fronts = 0;
  for (const auto& fronts : fronts_) num_fronts += fronts[0].size() + fronts[1].size();
  if (num_ends != ends_.size() || num_fronts != num_ordered || sizes != sizes_) {
    throw_broken(kName, "counts ", ends_.size(), " lanes that run out and ", num_fronts,
                 " first lanes, found ", num_ends, " and ", num_ordered);
  }
  for (TermId term = 0; term < terms_.num_ids(); ++term) {
    if (num_holders[static_cast<std::size_t>(term)] != terms_.num_holders(term)) {
      throw_broken(kName, "term ", term, " has ", num_holders[static_cast<std::size_t>(term)],
                   " holders, counts ", terms_.num_holders(term));
    }
  }
  for (TenantSlot slot = 0; slot < tenants_.num_slots(); ++slot) {
    if (num_pages[static_cast<std::size_t>(slot)] != tenants_.num_pages(slot)) {
      throw_broken(kName, "tenant ", slot, " has ", num_pages[static_cast<std::size_t>(slot)],
                   " pages, counts ", tenants_.num_pages(slot));
    }
  }
}

}  // namespace pagedkv
