#include <algorithm>

#include "pagedkv/error.h"
#include "pagedkv/pool/page_pool.h"

// Pages that are kept on terms, and pages side by side.
namespace pagedkv {

// The lanes, which the first term that is not the default needs; null as long as there was none.
RetentionLanes* PagePool::lanes_for(const RetentionTerm& term) {
  if (free_pages_.lanes() != nullptr || term == RetentionTerm{}) return free_pages_.lanes();
  RetentionLanes& lanes = free_pages_.start_retention();
  lanes.advance_time(now_);
  return &lanes;
}

bool PagePool::allocate(std::span<PageId> out, const PageClaim& claim) {
  constexpr auto kOperation = "PagePool.allocate";
  check_shard(kOperation, claim.shard);
  if (claim.after != kNoPage) check_page(kOperation, claim.after);
  const RetentionTerm checked = checked_term(kOperation, claim.term);
  if (out.size() > static_cast<std::size_t>(free_pages_.size(claim.shard))) return false;
  RetentionLanes* lanes = lanes_for(checked);
  const TermId term = lanes == nullptr ? kDefaultTerm : lanes->hold_term(checked);
  std::size_t taken = 0;
  if (claim.contiguous && claim.after != kNoPage) {
    const PageRange range = shards().pages_of(claim.shard);
    for (PageId next = claim.after + 1; taken < out.size() && range.contains(next); ++next) {
      if (!free_pages_.contains(next) || at(next).is_cached() ||
          free_pages_.is_forced(claim.shard, term)) {
        break;
      }
      free_pages_.remove(next);
      if (lanes != nullptr) {
        lanes->forget(next);
        lanes->start(next, term);
      }
      hand_out(next);
      out[taken++] = next;
    }
  }
  for (PageId& page : out.subspan(taken)) {
    page = lanes == nullptr ? free_pages_.pop_front(claim.shard)
                            : free_pages_.pop_for(claim.shard, term);
    hand_out(page);
  }
  if (claim.contiguous) std::ranges::sort(out.subspan(taken));
  if (lanes != nullptr) lanes->release_term(term);
  note_peak();
  return true;
}

void PagePool::hold(std::span<const PageId> pages, const RetentionTerm& term) {
  if (free_pages_.lanes() == nullptr && term == RetentionTerm{}) return hold(pages);
  const RetentionTerm checked = checked_term("PagePool.hold", term);
  hold(pages);
  RetentionLanes* lanes = lanes_for(checked);
  if (lanes == nullptr) return;
  const TermId id = lanes->hold_term(checked);
  for (const PageId page : pages) lanes->strengthen(page, id);
  lanes->release_term(id);
}

RetentionTerm PagePool::term(PageId page) const {
  if (page != kNullPage) check_page("PagePool.term", page);
  const RetentionLanes* lanes = free_pages_.lanes();
  return lanes == nullptr ? RetentionTerm{} : lanes->term_of(page);
}

void PagePool::advance_time(std::int64_t now) {
  if (now < now_) {
    throw_value_error("PagePool.advance_time", "the time was ", now_, " already, got ", now);
  }
  now_ = now;
  if (RetentionLanes* lanes = free_pages_.lanes()) lanes->advance_time(now);
}

void PagePool::set_tenant_quota(TenantId tenant, std::optional<PageId> max_pages) {
  constexpr auto kOperation = "PagePool.set_tenant_quota";
  if (tenant < 0) throw_value_error(kOperation, "tenant must be >= 0, got ", tenant);
  if (max_pages && *max_pages < 0) {
    throw_value_error(kOperation, "max_pages must be >= 0, got ", *max_pages);
  }
  if (!max_pages && free_pages_.lanes() == nullptr) return;
  lanes_for({.tenant = tenant})->set_quota(tenant, max_pages.value_or(Tenants::kNoQuota));
}

PageId PagePool::num_tenant_pages(TenantId tenant) const {
  if (tenant < 0)
    throw_value_error("PagePool.num_tenant_pages", "tenant must be >= 0, got ", tenant);
  const RetentionLanes* lanes = free_pages_.lanes();
  return lanes == nullptr ? 0 : lanes->num_pages_of(tenant);
}

}  // namespace pagedkv
