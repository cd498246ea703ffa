#include <utility>
#include <vector>

#include "pagedkv/error.h"
#include "pagedkv/manager/cache_manager.h"
#include "pagedkv/manager/manager_observer.h"

// What is kept when requests have gone.
namespace pagedkv {

RowClaim CacheManager::claim_for(const Request& request, GroupId group, ShardId shard) const {
  return {.shard = shard,
          .contiguous = options_.prefer_contiguous,
          .request = request.retention() == nullptr ? nullptr : &request,
          .page_size = coordinator_.policy(group).page_size()};
}

PinId CacheManager::pin(Request& request) {
  if (observer_ != nullptr) [[unlikely]] {
    return observed(observer_, PinCall{&request}, [&] { return pin(request); });
  }
  constexpr auto kOperation = "CacheManager.pin";
  std::vector<PageId> pages;
  state_of(kOperation, request);
  for (const PageRow& row : rows_of(request)) {
    for (const PageId page : row.pages()) {
      if (page != kNullPage && pool_.is_cached(page)) pages.push_back(page);
    }
  }
  if (pages.empty()) {
    throw_value_error(kOperation, "request '", request.request_id(),
                      "' has no committed pages that others can find");
  }
  return pins_.add(pool_, std::move(pages));
}

void CacheManager::unpin(PinId pin) {
  if (observer_ != nullptr) [[unlikely]] {
    return observed(observer_, UnpinCall{pin}, [&] { unpin(pin); });
  }
  pins_.remove(pool_, pin, "CacheManager.unpin");
}

void CacheManager::advance_time(std::int64_t now) {
  if (observer_ != nullptr) [[unlikely]] {
    return observed(observer_, AdvanceTimeCall{now}, [&] { advance_time(now); });
  }
  pool_.advance_time(now);
}

void CacheManager::set_tenant_quota(TenantId tenant, std::optional<PageId> max_pages) {
  if (observer_ != nullptr) [[unlikely]] {
    const SetTenantQuotaCall call{tenant, max_pages.has_value(), max_pages.value_or(0)};
    return observed(observer_, call, [&] { set_tenant_quota(tenant, max_pages); });
  }
  pool_.set_tenant_quota(tenant, max_pages);
}

}  // namespace pagedkv
