#include "pagedkv/manager/page_map.h"

#include <cstddef>
#include <iterator>
#include <ranges>

#include "pagedkv/manager/cache_manager.h"

namespace pagedkv {

PageMap CacheManager::page_map() const {
  const auto num_pages = static_cast<std::size_t>(pool_.num_pages());
  PageMap map;
  map.ref_counts.resize(num_pages);
  map.num_pins.resize(num_pages);
  map.is_cached.resize(num_pages);
  map.groups.resize(num_pages);
  for (const std::size_t i : std::views::iota(std::size_t{0}, num_pages)) {
    const auto page = static_cast<PageId>(i);
    map.ref_counts[i] = pool_.ref_count(page);
    map.num_pins[i] = pins_.count(page);
    map.is_cached[i] = pool_.is_cached(page) ? 1 : 0;
    map.groups[i] = pool_.group(page);
  }
  map.held_starts.push_back(0);
  for (const RequestState& state : states_) {
    if (state.request == nullptr) continue;
    GroupId group = 0;
    for (const PageRow& row : rows_of(*state.request)) {
      for (const PageId page : row.pages()) {
        if (page == kNullPage) continue;
        map.groups[static_cast<std::size_t>(page)] = group;
        map.held_pages.push_back(page);
      }
      ++group;
    }
    map.request_ids.push_back(state.request->request_id());
    map.held_starts.push_back(std::ssize(map.held_pages));
  }
  return map;
}

}  // namespace pagedkv
