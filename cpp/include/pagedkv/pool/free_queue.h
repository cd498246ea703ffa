#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "pagedkv/pool/page.h"
#include "pagedkv/pool/page_shards.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// LRU order of the pages nobody holds: `pop_front()` takes the coldest.
///
/// The links live in the page records, so nothing here allocates and every operation but
/// `check_invariants()` is O(1). The records must outlive the queue. Not thread-safe.
///
/// Links are steps from the neighbour that a page has by its id: see `Page`. A chain of links in
/// memory gives one page at a time; so each page names, as a guess, one that comes a while later,
/// and whoever takes pages fetches those ahead. The guess is wrong, and costs a fetch, if pages
/// between them have gone.
///
/// Invariant: `next(prev(p)) == p` for every linked page `p` but the coldest, and following `next`
/// from the coldest visits exactly `size()` pages.
class FreeQueue {
 public:
  /// Starts empty: no page of `pages` may be linked.
  explicit FreeQueue(std::span<Page> pages) : pages_(pages) {}

  PageId size() const { return size_; }
  bool contains(PageId page) const { return at(page).prev_step != Page::kUnlinked; }

  /// The coldest page, or `kNoPage` if none is free.
  PageId front() const { return front_; }

  /// The next warmer page, or `kNoPage`. Requires `contains(page)`.
  PageId next(PageId page) const {
    const std::int32_t step = at(page).next_step;
    return step == Page::kEnd ? kNoPage : page + 1 + step;
  }

  /// Links the pages of `range`, whose records are zeroed memory, in the order of their ids. O(1).
  /// Requires an empty queue.
  void add_unused(PageRange range);

  /// Unlinks and returns the coldest page, or `kNoPage` if none is free.
  PageId pop_front() {
    const PageId page = front_;
    if (page == kNoPage) return kNoPage;
    __builtin_prefetch(&at(at(page).ahead));
    front_ = next(page);
    front_ == kNoPage ? void(back_ = kNoPage) : set_prev(front_, kNoPage);
    unlink(page);
    return page;
  }

  /// Links `page` as the coldest. Requires `!contains(page)`.
  void push_front(PageId page);

  /// Links `page` as the warmest. Requires `!contains(page)`.
  void push_back(PageId page) {
    set_prev(page, back_);
    set_next(page, kNoPage);
    back_ == kNoPage ? void(front_ = page) : set_next(back_, page);
    back_ = page;
    ++size_;
    PageId& earlier = recent_[num_pushed_++ % kNumAhead];
    at(earlier).ahead = page;
    earlier = page;
  }

  /// Unlinks `page` from wherever it is. Requires `contains(page)`.
  void remove(PageId page);

  /// Throws `std::logic_error` naming the first broken link. For tests.
  void check_invariants() const;

 private:
  Page& at(PageId page) { return pages_[static_cast<std::size_t>(page)]; }
  const Page& at(PageId page) const { return pages_[static_cast<std::size_t>(page)]; }

  PageId prev(PageId page) const {
    const std::int32_t step = at(page).prev_step;
    return step == Page::kEnd ? kNoPage : page - 1 + step;
  }
  void set_next(PageId page, PageId next) {
    at(page).next_step = next == kNoPage ? Page::kEnd : next - (page + 1);
  }
  void set_prev(PageId page, PageId prev) {
    at(page).prev_step = prev == kNoPage ? Page::kEnd : prev - (page - 1);
  }
  void unlink(PageId page) {
    at(page).prev_step = Page::kUnlinked;
    at(page).next_step = Page::kEnd;
    --size_;
  }

  static constexpr std::size_t kNumAhead = 8;

  std::span<Page> pages_;
  std::array<PageId, kNumAhead> recent_{};  // the last that were pushed; the null page: none
  std::uint32_t num_pushed_ = 0;
  PageId front_ = kNoPage;
  PageId back_ = kNoPage;
  PageId size_ = 0;
};

}  // namespace pagedkv
