#pragma once

#include <cstdint>

#include "pagedkv/hash/page_hash.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// Everything the pool knows of one page, in one cache line.
///
/// `FreeQueue` owns `free_prev` and `free_next`, `FreePages` owns `freed_at`, `PrefixIndex` owns
/// `hash`, `group`, `duplicate_prev` and `duplicate_next`, `PagePool` owns `ref_count`.
struct alignas(64) Page {
  /// `free_prev` of a page that is in no free queue.
  static constexpr PageId kUnlinked = -2;

  PageHash hash;                    ///< Meaningful only if `is_cached()`.
  std::int64_t freed_at = 0;        ///< Order among the free pages: lower is colder.
  GroupId group = kNoGroup;         ///< Group under which `hash` is indexed.
  std::int32_t ref_count = 0;       ///< How many requests hold the page.
  PageId free_prev = kUnlinked;     ///< Colder neighbour, `kNoPage` at the cold end.
  PageId free_next = kNoPage;       ///< Warmer neighbour, `kNoPage` at the warm end.
  PageId duplicate_prev = kNoPage;  ///< Ring of the pages with one (hash, group), oldest first.
  PageId duplicate_next = kNoPage;

  /// True iff the prefix index can find the page.
  bool is_cached() const { return group != kNoGroup; }
};

static_assert(sizeof(Page) == 64);

}  // namespace pagedkv
