#pragma once

#include <span>

#include "pagedkv/pool/page.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// LRU order of the pages nobody holds: `pop_front()` takes the coldest.
///
/// The links live in the page records, so nothing here allocates and every operation but
/// `check_invariants()` is O(1). The records must outlive the queue. Not thread-safe.
///
/// Invariant: `pages[pages[p].free_prev].free_next == p` for every linked page `p` but the
/// coldest, and following `free_next` from the coldest visits exactly `size()` pages.
class FreeQueue {
 public:
  /// Starts empty: no page of `pages` may be linked.
  explicit FreeQueue(std::span<Page> pages) : pages_(pages) {}

  PageId size() const { return size_; }
  bool contains(PageId page) const { return at(page).free_prev != Page::kUnlinked; }

  /// The coldest page, or `kNoPage` if none is free.
  PageId front() const { return front_; }

  /// Unlinks and returns the coldest page, or `kNoPage` if none is free.
  PageId pop_front();

  /// Links `page` as the coldest. Requires `!contains(page)`.
  void push_front(PageId page);

  /// Links `page` as the warmest. Requires `!contains(page)`.
  void push_back(PageId page);

  /// Unlinks `page` from wherever it is. Requires `contains(page)`.
  void remove(PageId page);

  /// Throws `std::logic_error` naming the first broken link. For tests.
  void check_invariants() const;

 private:
  Page& at(PageId page) { return pages_[static_cast<std::size_t>(page)]; }
  const Page& at(PageId page) const { return pages_[static_cast<std::size_t>(page)]; }

  std::span<Page> pages_;
  PageId front_ = kNoPage;
  PageId back_ = kNoPage;
  PageId size_ = 0;
};

}  // namespace pagedkv
