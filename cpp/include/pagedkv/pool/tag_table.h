#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "pagedkv/pool/large_array.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// Page ids by 64 bits of what they are found by, all of which must look random. The bits are not
/// kept: who looks up compares what the pages have.
///
/// A table of buckets. Each is a cache line with room for 10 pages, 16 bits of each key, and a
/// count of the pages that found it full and went on to the next bucket. A look-up goes on only
/// where that count is not 0, so that nearly all touch one line; and what is erased leaves nothing
/// behind, and moves nothing. Counts of overflow in place of tombstones are an idea of F14, the
/// hash table of Folly. The table is made for a number of pages, at 4.5 a bucket, and never grows.
/// Not thread-safe.
///
/// Invariant: the count of a bucket is that of the pages between whose home and whose bucket it
/// lies, the home counted in.
class TagTable {
 public:
  /// Makes an empty table with room for `num_pages` pages.
  explicit TagTable(std::size_t num_pages) : buckets_(num_pages / 9 * 2 + 2) {}

  /// A page under `key` for which `is_wanted(page)`, or `kNoPage`. Is asked of nearly no others.
  template <typename IsWanted>
  PageId find(std::uint64_t key, IsWanted is_wanted) const {
    std::size_t i = home(key);
    for (std::size_t n = buckets_.size(); n > 0; --n, i = next(i)) {
      const Bucket& bucket = buckets_[i];
      for (std::uint32_t lanes = bucket.lanes_with(tag_of(key)); lanes != 0; lanes &= lanes - 1) {
        const PageId page = bucket.pages[first_of(lanes)];
        if (is_wanted(page)) return page;
      }
      if (bucket.num_passed == 0) [[likely]]
        break;
    }
    return kNoPage;
  }

  /// Adds `page`. Requires that there is room, and that the page is not there.
  void insert(std::uint64_t key, PageId page);

  /// As `find`; and if there is none, adds `page`. Requires that there is room then.
  template <typename IsWanted>
  PageId find_or_insert(std::uint64_t key, PageId page, IsWanted is_wanted) {
    Bucket& bucket = buckets_[home(key)];
    const std::uint32_t unused = bucket.lanes_with(kNoTag);
    if (unused == 0 || bucket.num_passed != 0) [[unlikely]] {
      const PageId found = find(key, is_wanted);
      if (found == kNoPage) insert(key, page);
      return found;
    }
    for (std::uint32_t lanes = bucket.lanes_with(tag_of(key)); lanes != 0; lanes &= lanes - 1) {
      const PageId found = bucket.pages[first_of(lanes)];
      if (is_wanted(found)) return found;
    }
    bucket.put(first_of(unused), tag_of(key), page);
    return kNoPage;
  }

  /// Takes `page` away. Requires that it is there under `key`.
  void erase(std::uint64_t key, PageId page) {
    Bucket& bucket = buckets_[home(key)];
    for (std::uint32_t lanes = bucket.lanes_with(tag_of(key)); lanes != 0; lanes &= lanes - 1) {
      if (bucket.pages[first_of(lanes)] != page) continue;
      bucket.tags[first_of(lanes)] = kNoTag;
      return;
    }
    erase_overflown(key, page);
  }

  /// Puts `other` in the place of `page`, if that is there under `key`.
  void replace(std::uint64_t key, PageId page, PageId other);

  void clear();

  /// Fetches the home of `key` from memory, without waiting for it.
  void prefetch(std::uint64_t key) const { __builtin_prefetch(&buckets_[home(key)]); }

  /// Calls `visit(page)` for each page, in the order of the table.
  template <typename Visit>
  void for_each(Visit visit) const {
    for (const Bucket& bucket : buckets_) {
      for (std::size_t lane = 0; lane < kNumLanes; ++lane) {
        if (bucket.tags[lane] != kNoTag) visit(bucket.pages[lane]);
      }
    }
  }

  /// Throws `std::logic_error` if a page is not found under `key_of(page)`, or a count is wrong.
  /// For tests.
  template <typename KeyOf>
  void check_invariants(KeyOf key_of) const {
    TagTable expected(0);
    expected.buckets_ = LargeArray<Bucket>(buckets_.size());
    for (std::size_t i = 0; i < buckets_.size(); ++i) {
      for (std::size_t lane = 0; lane < kNumLanes; ++lane) {
        if (buckets_[i].tags[lane] == kNoTag) continue;
        const PageId page = buckets_[i].pages[lane];
        expected.note_passed(key_of(page), i);
        check_found(key_of(page), page, i);
      }
    }
    check_counts(expected);
  }

 private:
  static constexpr std::size_t kNumLanes = 10;
  static constexpr std::uint16_t kNoTag = 0;

  /// Zeroed memory is an empty bucket.
  struct alignas(64) Bucket {
    std::array<std::uint16_t, kNumLanes> tags;  ///< `kNoTag`: the lane is not in use.
    std::uint32_t num_passed;
    std::array<PageId, kNumLanes> pages;

    void put(std::size_t lane, std::uint16_t tag, PageId page) {
      tags[lane] = tag;
      pages[lane] = page;
    }

    // One bit a lane. All are compared at once: which one it is cannot be foretold, so that a loop
    // over them would end where the CPU does not expect it.
    std::uint32_t lanes_with(std::uint16_t tag) const {
#if defined(__SSE2__)
      const auto* const halves = reinterpret_cast<const __m128i*>(this);  // and what comes after
      const __m128i wanted = _mm_set1_epi16(static_cast<std::int16_t>(tag));
      const __m128i same = _mm_packs_epi16(_mm_cmpeq_epi16(_mm_load_si128(halves), wanted),
                                           _mm_cmpeq_epi16(_mm_load_si128(halves + 1), wanted));
      const auto bits = static_cast<std::uint32_t>(_mm_movemask_epi8(same));
#else
      std::uint32_t bits = 0;
      for (std::size_t lane = 0; lane < kNumLanes; ++lane) {
        bits |= static_cast<std::uint32_t>(tags[lane] == tag) << lane;
      }
#endif
      return bits & ((1U << kNumLanes) - 1);
    }
  };
  static_assert(sizeof(Bucket) == 64);

  static std::size_t first_of(std::uint32_t lanes) {
    return static_cast<std::size_t>(std::countr_zero(lanes));
  }

  static std::uint16_t tag_of(std::uint64_t key) {
    const auto tag = static_cast<std::uint16_t>(key);
    return tag == kNoTag ? std::uint16_t{1} : tag;
  }

  // Scales high bits of the key to the table: no division, and any table size will do.
  std::size_t home(std::uint64_t key) const {
    return static_cast<std::size_t>(((key >> 32) * buckets_.size()) >> 32);
  }
  std::size_t next(std::size_t bucket) const {
    return bucket + 1 == buckets_.size() ? 0 : bucket + 1;
  }

  struct Place {
    std::size_t bucket;
    std::size_t lane;
  };
  bool find_place(std::uint64_t key, PageId page, Place& place) const;
  void erase_overflown(std::uint64_t key, PageId page);
  void note_passed(std::uint64_t key, std::size_t bucket);
  void check_found(std::uint64_t key, PageId page, std::size_t bucket) const;
  void check_counts(const TagTable& expected) const;

  LargeArray<Bucket> buckets_;
};

}  // namespace pagedkv
