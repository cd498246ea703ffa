#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "copy_bytes.h"
#include "copy_parts.h"
#include "ids.h"
#include "page_view.h"
#include "parallel_for.h"

/// Copies of many pages, in several runs each, by several threads if there are enough.
namespace pagedkv {

/// A run of a page on its way.
struct RunCopy {
  std::byte* target;
  const std::byte* source;  // null for zeros
};

/// Copies runs `[0, num_runs)` of `run_bytes`, as `find(run)` says; it gives a null target for a
/// run that is not to be copied. Runs may be copied in any order and at the same time.
template <typename Find>
void copy_runs(ffi::ThreadPool& threads, int64_t num_runs, int64_t run_bytes, const Find& find) {
  constexpr int64_t kPrefetchRuns = 4;
  constexpr int64_t kPartBytes = int64_t{128} << 10;
  if (num_runs == 0 || run_bytes == 0) return;
  const int64_t num_bytes = num_runs * run_bytes;
  const auto bytes = static_cast<size_t>(run_bytes);
  const bool streaming = num_bytes >= kStreamingBytes;
  const auto copy_part = [&](int64_t first, int64_t last) {
    for (int64_t run = first; run < last; ++run) {
      if (run + kPrefetchRuns < last) {
        const RunCopy ahead = find(run + kPrefetchRuns);
        if (ahead.target != nullptr && ahead.source != nullptr) prefetch(ahead.source, bytes);
      }
      const RunCopy copy = find(run);
      if (copy.target == nullptr) continue;
      if (copy.source == nullptr) {
        std::memset(copy.target, 0, bytes);
      } else if (streaming) {
        stream_bytes(copy.target, copy.source, bytes);
      } else {
        std::memcpy(copy.target, copy.source, bytes);
      }
    }
    if (streaming) end_streaming();
  };
  const int64_t num_workers = num_copy_workers(threads, num_bytes);
  if (num_workers == 1) return copy_part(0, num_runs);
  const int64_t part = std::max<int64_t>(1, kPartBytes / run_bytes);
  parallel_for(threads, num_workers, (num_runs + part - 1) / part, [&](int64_t, int64_t item) {
    copy_part(item * part, std::min(num_runs, (item + 1) * part));
  });
}

/// Copies page `ids[i]` of a layer to row `i` of `rows`, zeros for an id out of range.
inline void gather_rows(ffi::ThreadPool& threads, const PageView& view, const std::byte* layer,
                        int64_t num_pages, std::span<const int32_t> ids, std::byte* rows) {
  if (view.run_bytes == 0) return;
  copy_runs(
      threads, static_cast<int64_t>(ids.size()) * view.num_outer, view.run_bytes, [&](int64_t run) {
        const int64_t row = run / view.num_outer, outer = run % view.num_outer;
        const int32_t id = ids[static_cast<size_t>(row)];
        return RunCopy{.target = rows + run * view.run_bytes,
                       .source = in_range(id, num_pages) ? layer + outer * view.outer_stride() +
                                                               int64_t{id} * view.run_bytes
                                                         : nullptr};
      });
}

/// Copies to page `ids[i]` of a layer, for each id in range and in order: of equal ids the last one
/// wins. `source(i, outer)` is the run to copy; none may lie in a page that is written.
template <typename Source>
void scatter_rows(ffi::ThreadPool& threads, const PageView& view, std::byte* layer,
                  int64_t num_pages, std::span<const int32_t> ids, const Source& source) {
  const int64_t num_bytes = static_cast<int64_t>(ids.size()) * view.page_bytes();
  if (num_bytes == 0) return;
  const bool streaming = num_bytes >= kStreamingBytes;
  // Equal ids are of one part, so no two threads write one page.
  for_parts(threads, num_bytes, [&](int64_t part, int64_t num_parts) {
    for (size_t i = 0; i < ids.size(); ++i) {
      if (!in_range(ids[i], num_pages) || (num_parts > 1 && ids[i] % num_parts != part)) continue;
      std::byte* target = layer + int64_t{ids[i]} * view.run_bytes;
      for (int64_t outer = 0; outer < view.num_outer; ++outer) {
        const std::byte* run = source(i, outer);
        if (streaming) {
          stream_bytes(target, run, static_cast<size_t>(view.run_bytes));
        } else {
          std::memcpy(target, run, static_cast<size_t>(view.run_bytes));
        }
        target += view.outer_stride();
      }
    }
    if (streaming) end_streaming();
  });
}

}  // namespace pagedkv
