#pragma once

#include <cstdint>
#include <limits>

#include "pagedkv/hash/page_hash.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// Everything the pool knows of one page, in one cache line.
///
/// `FreeQueue` owns `prev_step`, `next_step` and `ahead`, `FreePages` owns `freed_at`,
/// `PrefixIndex` owns `hash`, `group`, `duplicate_prev` and `duplicate_next`, `PagePool` owns
/// `ref_count`.
///
/// Zeroed memory is a row of pages that were never used, each linked to its neighbours: so a pool
/// of any size is made by asking for memory. A record made with `Page()` is in no queue.
struct alignas(64) Page {
  /// Groups are below.
  static constexpr GroupId kMaxGroups = 0xFFFF;
  /// In place of a step: no neighbour on this side.
  static constexpr std::int32_t kEnd = std::numeric_limits<std::int32_t>::min();
  /// `prev_step` of a page that is in no free queue.
  static constexpr std::int32_t kUnlinked = kEnd + 1;

  PageHash hash;                       ///< Meaningful only if `is_cached()`.
  std::uint64_t stamp : 48 = 0;        ///< Of `freed_at()`: enough for 4 years of a page a us.
  std::uint64_t group_code : 16 = 0;   ///< Group under which `hash` is indexed, plus 1; 0: none.
  PageId ahead = kNullPage;            ///< A guess: a page to be taken a while after this one.
  std::int32_t ref_count = 0;          ///< How many requests hold the page.
  std::int32_t prev_step = kUnlinked;  ///< From page - 1 to the colder neighbour, or `kEnd`.
  std::int32_t next_step = kEnd;       ///< From page + 1 to the warmer neighbour, or `kEnd`.
  PageId duplicate_prev = kNullPage;   ///< Ring of the cached pages with one (hash, group), oldest
  PageId duplicate_next = kNullPage;   ///< first. The null page in others.

  /// Order among the free pages: lower is colder.
  std::int64_t freed_at() const {
    return static_cast<std::int64_t>(std::uint64_t{stamp} << 16) >> 16;  // with its sign
  }
  void set_freed_at(std::int64_t time) {
    stamp = static_cast<std::uint64_t>(time) & 0xFFFF'FFFF'FFFF;
  }

  GroupId group() const { return static_cast<GroupId>(group_code) - 1; }
  void set_group(GroupId group) { group_code = static_cast<std::uint16_t>(group + 1); }

  /// True iff the prefix index can find the page.
  bool is_cached() const { return group_code != 0; }
};

static_assert(kNoGroup == -1);

static_assert(sizeof(Page) == 64);

}  // namespace pagedkv
