#include "pagedkv/pool/prefix_index.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "pagedkv/error.h"

namespace pagedkv {

PrefixIndex::PrefixIndex(std::span<Page> pages)
    : pages_(pages), slots_(pages.size() + pages.size() * 3 / 4 + 2) {}

// The slot of the key, or the empty slot where it would go.
std::size_t PrefixIndex::find_slot(const PageHash& hash, GroupId group, std::uint32_t tag) const {
  std::size_t slot = home(tag);
  for (; slots_[slot].page != kNullPage; slot = next(slot)) {
    if (slots_[slot].tag != tag) continue;
    const Page& page = at(slots_[slot].page);
    if (page.group() == group && page.hash == hash) break;
  }
  return slot;
}

PageId PrefixIndex::find(const PageHash& hash, GroupId group) const {
  const PageId page = slots_[find_slot(hash, group, tag_of(hash, group))].page;
  return page == kNullPage ? kNoPage : page;
}

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

void PrefixIndex::insert(PageId page, const PageHash& hash, GroupId group) {
  assert(page != kNullPage && group >= 0 && !at(page).is_cached());
  const std::uint32_t tag = tag_of(hash, group);
  Slot& slot = slots_[find_slot(hash, group, tag)];
  at(page).hash = hash;
  at(page).set_group(group);
  if (slot.page == kNullPage) {
    slot = {tag, page};
    at(page).duplicate_prev = at(page).duplicate_next = page;
    ++num_keys_;
  } else {
    const PageId oldest = slot.page;
    const PageId youngest = at(oldest).duplicate_prev;
    at(page).duplicate_prev = youngest;
    at(page).duplicate_next = oldest;
    at(youngest).duplicate_next = page;
    at(oldest).duplicate_prev = page;
  }
  ++num_pages_;
}

void PrefixIndex::remove(PageId page) {
  Page& record = at(page);
  assert(record.is_cached());
  const std::size_t slot =
      find_slot(record.hash, record.group(), tag_of(record.hash, record.group()));
  if (record.duplicate_next == page) {
    erase_slot(slot);
    --num_keys_;
  } else {
    if (slots_[slot].page == page) slots_[slot].page = record.duplicate_next;
    at(record.duplicate_prev).duplicate_next = record.duplicate_next;
    at(record.duplicate_next).duplicate_prev = record.duplicate_prev;
  }
  record.set_group(kNoGroup);
  record.duplicate_prev = record.duplicate_next = kNullPage;
  --num_pages_;
}

// Moves later keys of the run back over the hole, so that no tombstones pile up.
void PrefixIndex::erase_slot(std::size_t hole) {
  for (std::size_t slot = next(hole); slots_[slot].page != kNullPage; slot = next(slot)) {
    const std::size_t wanted = home(slots_[slot].tag);
    const bool stays =
        hole <= slot ? hole < wanted && wanted <= slot : hole < wanted || wanted <= slot;
    if (stays) continue;
    slots_[hole] = slots_[slot];
    hole = slot;
  }
  slots_[hole] = {};
}

void PrefixIndex::clear() {
  for (Page& page : pages_) {
    page.set_group(kNoGroup);
    page.duplicate_prev = page.duplicate_next = kNullPage;
  }
  std::ranges::fill(slots_, Slot{});
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
  for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
    const PageId oldest = slots_[slot].page;
    if (oldest == kNullPage) continue;
    ++keys;
    const Page& first = at(oldest);
    if (!first.is_cached()) throw_broken("PrefixIndex", "page ", oldest, " has no key");
    if (find_slot(first.hash, first.group(), tag_of(first.hash, first.group())) != slot) {
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
  }
  PageId cached = 0;
  for (const Page& page : pages_) cached += page.is_cached();
  if (keys != num_keys_ || pages != num_pages_ || cached != num_pages_) {
    throw_broken("PrefixIndex", "counts ", num_keys_, " keys and ", num_pages_, " pages, found ",
                 keys, " and ", pages, ", with ", cached, " pages marked as cached");
  }
}

}  // namespace pagedkv
