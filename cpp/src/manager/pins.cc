#include "pagedkv/manager/pins.h"

#include <algorithm>
#include <utility>

#include "pagedkv/error.h"

namespace pagedkv {

PinId Pins::add(PagePool& pool, std::vector<PageId> pages) {
  pool.hold(pages);
  for (const PageId page : pages) ++counts_[page];
  pins_.emplace(next_, std::move(pages));
  return next_++;
}

void Pins::remove(PagePool& pool, PinId pin, const char* operation) {
  const auto found = pins_.find(pin);
  if (found == pins_.end()) {
    throw_value_error(operation, "there is no pin ", pin, " (unpinned already, or never made)");
  }
  std::vector<PageId>& pages = found->second;
  std::ranges::reverse(pages);
  pool.free(pages);
  for (const PageId page : pages) {
    if (--counts_[page] == 0) counts_.erase(page);
  }
  pins_.erase(found);
}

void Pins::check_invariants() const {
  std::unordered_map<PageId, std::int32_t> counts;
  for (const auto& [pin, pages] : pins_) {
    for (const PageId page : pages) ++counts[page];
  }
  if (counts != counts_) throw_broken("Pins", "counts of pinned pages are not those of the pins");
}

}  // namespace pagedkv
