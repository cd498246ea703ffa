#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pagedkv/types.h"

namespace pagedkv {

/// Who has which page of a manager: a copy, for those who look at it.
///
/// Invariant: a page `p` is held by `ref_counts[p] - num_pins[p]` requests, and occurs as often in
/// `held_pages`.
struct PageMap {
  std::vector<std::int32_t> ref_counts;  ///< Of each page: requests and pins that hold it.
  std::vector<std::int32_t> num_pins;    ///< Of each page: pins among these.
  std::vector<std::int32_t> is_cached;   ///< Of each page: 1 if its content can be found, else 0.
  /// Of each page: the group of its content, or of the requests that hold it; `kNoGroup` of others.
  std::vector<GroupId> groups;
  std::vector<std::string> request_ids;  ///< Requests that hold pages, in order of their places.
  /// Request `i` holds `held_pages[held_starts[i] .. held_starts[i + 1] - 1]`.
  std::vector<std::int64_t> held_starts;
  std::vector<PageId> held_pages;  ///< Rows of the groups one after the other, null pages aside.
};

}  // namespace pagedkv
