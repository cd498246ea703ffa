#include "pagedkv/pool/tag_table.h"

#include <algorithm>
#include <cassert>

#include "pagedkv/error.h"

namespace pagedkv {

void TagTable::insert(std::uint64_t key, PageId page) {
  std::size_t i = home(key);
  std::uint32_t unused = buckets_[i].lanes_with(kNoTag);
  for (; unused == 0; unused = buckets_[i].lanes_with(kNoTag)) {
    ++buckets_[i].num_passed;
    i = next(i);
  }
  buckets_[i].put(first_of(unused), tag_of(key), page);
}

bool TagTable::find_place(std::uint64_t key, PageId page, Place& place) const {
  std::size_t i = home(key);
  for (std::size_t n = buckets_.size(); n > 0; --n, i = next(i)) {
    const Bucket& bucket = buckets_[i];
    for (std::uint32_t lanes = bucket.lanes_with(tag_of(key)); lanes != 0; lanes &= lanes - 1) {
      place = {i, first_of(lanes)};
      if (bucket.pages[place.lane] == page) return true;
    }
    if (bucket.num_passed == 0) [[likely]]
      break;
  }
  return false;
}

// Of a page that found its home full.
void TagTable::erase_overflown(std::uint64_t key, PageId page) {
  Place place{};
  const bool is_there = find_place(key, page, place);
  assert(is_there);
  if (!is_there) return;
  for (std::size_t i = home(key); i != place.bucket; i = next(i)) --buckets_[i].num_passed;
  buckets_[place.bucket].tags[place.lane] = kNoTag;
}

void TagTable::replace(std::uint64_t key, PageId page, PageId other) {
  Place place{};
  if (find_place(key, page, place)) buckets_[place.bucket].pages[place.lane] = other;
}

void TagTable::clear() { std::ranges::fill(buckets_, Bucket{}); }

void TagTable::note_passed(std::uint64_t key, std::size_t bucket) {
  for (std::size_t i = home(key); i != bucket; i = next(i)) ++buckets_[i].num_passed;
}

void TagTable::check_found(std::uint64_t key, PageId page, std::size_t bucket) const {
  Place place{};
  if (find_place(key, page, place) && place.bucket == bucket) return;
  throw_broken("TagTable", "page ", page, " is in bucket ", bucket, " and not found there");
}

void TagTable::check_counts(const TagTable& expected) const {
  for (std::size_t i = 0; i < buckets_.size(); ++i) {
    if (buckets_[i].num_passed == expected.buckets_[i].num_passed) continue;
    throw_broken("TagTable", "bucket ", i, " counts ", buckets_[i].num_passed,
                 " pages that passed it, found ", expected.buckets_[i].num_passed);
  }
}

}  // namespace pagedkv
