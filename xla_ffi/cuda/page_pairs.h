#pragma once

#include <cstddef>
#include <cstdint>

#include "device.h"
#include "host_device.h"
#include "page_ids.h"
#include "page_runs.h"
#include "units.h"

namespace pagedkv::cuda {

/// Pairs of pages, the first to be copied to the second.
struct PagePairs {
  const int32_t* sources;
  const int32_t* targets;
  int64_t num_pairs;  // of an element of the batch
  int64_t num_pages;

  /// A pair with padding in it is none.
  PAGEDKV_DEVICE bool is_pair(int64_t i) const {
    return sources[i] != kPadding && targets[i] != kPadding;
  }
  PAGEDKV_DEVICE bool exists(int64_t i) const {
    return in_range(sources[i], num_pages) && in_range(targets[i], num_pages);
  }
};

/// Counts the pairs that name a page which is not there, one item for each element of the batch.
struct CountPairs {
  PagePairs pairs;
  int32_t* num_dropped;
  int64_t num_batches;

  int64_t num_items() const { return num_batches; }

  template <typename Group>
  PAGEDKV_DEVICE void operator()(const Group& group, int64_t batch) const {
    const int64_t first = batch * pairs.num_pairs;
    const int32_t found = group.count(pairs.num_pairs, [&](int64_t i) {
      return pairs.is_pair(first + i) && !pairs.exists(first + i);
    });
    if (group.is_first()) num_dropped[batch] = found;
  }
};

/// Copies pages inside a pool. An item is one unit of a page, the same in all pages: a thread reads
/// it from every source before it writes it to the targets, in order. So pages can be swapped and
/// the last of equal targets wins, although nobody waits for anybody.
struct CopyPairs {
  PageRuns pages;
  PagePairs pairs;
  int64_t num_batches;

  /// None without a page: what is in it may then be of any size.
  int64_t num_items() const {
    return pairs.num_pairs == 0 || pages.num_pages == 0 ? 0 : num_batches * pages.page_units();
  }
  /// Of one thread.
  int64_t scratch_bytes() const { return pairs.num_pairs * pages.unit; }

  template <typename Scratch>
  PAGEDKV_DEVICE void operator()(const Scratch& scratch, int64_t item) const {
    const int64_t batch = divide(item, pages.page_units());
    std::byte* const page = pages.layer(batch, 0) + pages.offset(item - batch * pages.page_units());
    const int64_t first = batch * pairs.num_pairs;
    with_unit(pages.unit, [&](auto any) {
      using Unit = decltype(any);
      PAGEDKV_UNROLL
      for (int64_t i = 0; i < pairs.num_pairs; ++i) {
        if (!pairs.exists(first + i)) continue;
        store_unit<Unit>(
            scratch.template at<Unit>(i),
            load_unit<Unit>(page + int64_t{pairs.sources[first + i]} * pages.run_bytes));
      }
      for (int64_t i = 0; i < pairs.num_pairs; ++i) {
        if (!pairs.exists(first + i)) continue;
        store_unit<Unit>(page + int64_t{pairs.targets[first + i]} * pages.run_bytes,
                         load_unit<Unit>(scratch.template at<Unit>(i)));
      }
    });
  }
};

/// The largest unit, of at most `largest` bytes, with which a block of 32 threads can hold
/// `num_pairs` of them each; 1 if none is small enough.
inline int64_t column_unit(int64_t largest, int64_t num_pairs) {
  constexpr int64_t kThreads = 32;
  int64_t unit = largest;
  while (unit > 1 && num_pairs > kScratchBytes / (kThreads * unit)) unit /= 2;
  return unit;
}

}  // namespace pagedkv::cuda
