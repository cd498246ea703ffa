#pragma once

#include <cstdint>
#include <map>
#include <unordered_map>
#include <vector>

#include "pagedkv/pool/page_pool.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// Names a pin. Never used twice.
using PinId = std::int64_t;

/// Pages that are held for nobody but the callers that pinned them, so that they are not evicted.
class Pins {
 public:
  /// Holds `pages`, which must be real ones, once more. O(pages).
  PinId add(PagePool& pool, std::vector<PageId> pages);

  /// Gives the pages of a pin back, the last first.
  ///
  /// Throws `std::invalid_argument` as if it were `operation` for a pin that is not there.
  void remove(PagePool& pool, PinId pin, const char* operation);

  /// Pins that there are or were.
  std::int64_t num_made() const { return next_ - 1; }

  std::int32_t num_pins() const { return static_cast<std::int32_t>(pins_.size()); }

  /// Distinct pages that are pinned.
  PageId num_pages() const { return static_cast<PageId>(counts_.size()); }

  /// Calls `give_back` with the pages of each pin, as `remove` of all in turn would free them.
  template <typename GiveBack>
  void for_each(GiveBack give_back) const {
    for (const auto& [pin, pages] : pins_) {
      give_back(std::vector<PageId>(pages.rbegin(), pages.rend()));
    }
  }

  /// How many pins hold `page`.
  std::int32_t count(PageId page) const {
    if (counts_.empty()) return 0;
    const auto found = counts_.find(page);
    return found == counts_.end() ? 0 : found->second;
  }

  /// Throws `std::logic_error` naming what does not hold. For tests.
  void check_invariants() const;

 private:
  std::map<PinId, std::vector<PageId>> pins_;
  std::unordered_map<PageId, std::int32_t> counts_;
  PinId next_ = 1;
};

}  // namespace pagedkv
