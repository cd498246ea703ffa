#include <utility>
#include <vector>

#include "pagedkv/error.h"
#include "pagedkv/manager/cache_manager.h"

// What is kept when requests have gone.
namespace pagedkv {

RowClaim CacheManager::claim_for(const Request& request, GroupId group, ShardId shard) const {
  return {.shard = shard,
          .contiguous = options_.prefer_contiguous,
          .request = request.retention() == nullptr ? nullptr : &request,
          .page_size = coordinator_.policy(group).page_size()};
}

PinId CacheManager::pin(const Request& request) {
  constexpr auto kOperation = "CacheManager.pin";
  std::vector<PageId> pages;
  for (const PageRow& row : state_of(kOperation, request).rows) {
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

void CacheManager::unpin(PinId pin) { pins_.remove(pool_, pin, "CacheManager.unpin"); }

}  // namespace pagedkv
