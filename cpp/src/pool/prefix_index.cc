#include "pagedkv/pool/prefix_index.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "pagedkv/error.h"

namespace pagedkv {

PrefixIndex::PrefixIndex(std::span<Page> pages) : pages_(pages), table_(pages.size()) {}

PageId PrefixIndex::find(const PageHash& hash, GroupId group, PageRange range) const {
  const PageId oldest = find(hash, group);
  if (oldest == kNoPage) return kNoPage;
  PageId page = oldest;
  do {
    if (range.contains(page)) return page;
    page = at(page).duplicate_next;
  } while (page != oldest);
  return kNoPage;
}

void PrefixIndex::join_ring(PageId page, PageId oldest) {
  const PageId youngest = at(oldest).duplicate_prev;
  at(page).duplicate_prev = youngest;
  at(page).duplicate_next = oldest;
  at(youngest).duplicate_next = page;
  at(oldest).duplicate_prev = page;
}

void PrefixIndex::leave_ring(PageId page) {
  const Page& record = at(page);
  // If it is the oldest.
  table_.replace(key_of(record.hash, record.group()), page, record.duplicate_next);
  at(record.duplicate_prev).duplicate_next = record.duplicate_next;
  at(record.duplicate_next).duplicate_prev = record.duplicate_prev;
}

void PrefixIndex::clear() {
  for (Page& page : pages_) {
    page.set_group(kNoGroup);
    page.duplicate_prev = page.duplicate_next = kNullPage;
  }
  table_.clear();
  num_keys_ = num_pages_ = 0;
}

std::vector<PageId> PrefixIndex::in_order() const {
  std::vector<PageId> order;
  order.reserve(static_cast<std::size_t>(num_pages_));
  for (PageId page = kNullPage + 1; std::cmp_less(page, pages_.size()); ++page) {
    if (!at(page).is_cached() || find(at(page).hash, at(page).group()) != page) continue;
    PageId duplicate = page;
    do {
      order.push_back(duplicate);
      duplicate = at(duplicate).duplicate_next;
    } while (duplicate != page);
  }
  return order;
}

void PrefixIndex::check_invariants() const {
  PageId keys = 0;
  PageId pages = 0;
  table_.check_invariants([&](PageId page) { return key_of(at(page).hash, at(page).group()); });
  table_.for_each([&](PageId oldest) {
    ++keys;
    const Page& first = at(oldest);
    if (!first.is_cached()) throw_broken("PrefixIndex", "page ", oldest, " has no key");
    if (find(first.hash, first.group()) != oldest) {
      throw_broken("PrefixIndex", "page ", oldest, " cannot be found from its key");
    }
    PageId page = oldest;
    do {
      const PageId younger = at(page).duplicate_next;
      if (at(page).group() != first.group() || at(page).hash != first.hash) {
        throw_broken("PrefixIndex", "page ", page, " is in the ring of another key");
      }
      if (at(younger).duplicate_prev != page) {
        throw_broken("PrefixIndex", "broken ring between pages ", page, " and ", younger);
      }
      if (++pages > num_pages_) throw_broken("PrefixIndex", "more than ", num_pages_, " pages");
      page = younger;
    } while (page != oldest);
  });
  PageId cached = 0;
  for (const Page& page : pages_) cached += page.is_cached();
  if (keys != num_keys_ || pages != num_pages_ || cached != num_pages_) {
    throw_broken("PrefixIndex", "counts ", num_keys_, " keys and ", num_pages_, " pages, found ",
                 keys, " and ", pages, ", with ", cached, " pages marked as cached");
  }
}

}  // namespace pagedkv
