#include "pagedkv/pool/free_queue.h"

#include <cassert>

#include "pagedkv/error.h"

namespace pagedkv {

PageId FreeQueue::pop_front() {
  const PageId page = front_;
  if (page != kNoPage) remove(page);
  return page;
}

void FreeQueue::push_front(PageId page) {
  assert(!contains(page));
  at(page).free_prev = kNoPage;
  at(page).free_next = front_;
  (front_ == kNoPage ? back_ : at(front_).free_prev) = page;
  front_ = page;
  ++size_;
}

void FreeQueue::push_back(PageId page) {
  assert(!contains(page));
  at(page).free_prev = back_;
  at(page).free_next = kNoPage;
  (back_ == kNoPage ? front_ : at(back_).free_next) = page;
  back_ = page;
  ++size_;
}

void FreeQueue::remove(PageId page) {
  assert(contains(page));
  const PageId prev = at(page).free_prev;
  const PageId next = at(page).free_next;
  (prev == kNoPage ? front_ : at(prev).free_next) = next;
  (next == kNoPage ? back_ : at(next).free_prev) = prev;
  at(page).free_prev = Page::kUnlinked;
  at(page).free_next = kNoPage;
  --size_;
}

void FreeQueue::check_invariants() const {
  PageId visited = 0;
  PageId prev = kNoPage;
  for (PageId page = front_; page != kNoPage; page = at(page).free_next) {
    if (at(page).free_prev != prev) throw_broken("FreeQueue", "broken link before page ", page);
    if (++visited > size_) break;
    prev = page;
  }
  if (visited != size_) {
    throw_broken("FreeQueue", "linked ", visited, " pages, size is ", size_);
  }
  if (prev != back_) throw_broken("FreeQueue", "warmest is page ", back_, ", links end at ", prev);
}

}  // namespace pagedkv
