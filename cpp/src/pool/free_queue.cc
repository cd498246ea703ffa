#include "pagedkv/pool/free_queue.h"

#include <cassert>

#include "pagedkv/error.h"

namespace pagedkv {

void FreeQueue::add_unused(PageRange range) {
  assert(size_ == 0);
  if (range.begin >= range.end) return;
  front_ = range.begin;
  back_ = range.end - 1;
  size_ = range.end - range.begin;
  set_prev(front_, kNoPage);
  set_next(back_, kNoPage);
}

void FreeQueue::push_front(PageId page) {
  assert(!contains(page));
  set_prev(page, kNoPage);
  set_next(page, front_);
  front_ == kNoPage ? void(back_ = page) : set_prev(front_, page);
  front_ = page;
  ++size_;
}

void FreeQueue::remove(PageId page) {
  assert(contains(page));
  const PageId before = prev(page);
  const PageId after = next(page);
  before == kNoPage ? void(front_ = after) : set_next(before, after);
  after == kNoPage ? void(back_ = before) : set_prev(after, before);
  unlink(page);
}

void FreeQueue::check_invariants() const {
  PageId visited = 0;
  PageId last = kNoPage;
  for (PageId page = front_; page != kNoPage; page = next(page)) {
    if (page < 0 || static_cast<std::size_t>(page) >= pages_.size() || prev(page) != last) {
      throw_broken("FreeQueue", "broken link before page ", page);
    }
    if (++visited > size_) break;
    last = page;
  }
  if (visited != size_) {
    throw_broken("FreeQueue", "linked ", visited, " pages, size is ", size_);
  }
  if (last != back_) throw_broken("FreeQueue", "warmest is page ", back_, ", links end at ", last);
}

}  // namespace pagedkv
