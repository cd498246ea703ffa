#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

#include "xla/ffi/api/ffi.h"

namespace pagedkv {

namespace ffi = xla::ffi;

/// Calls `function(worker, item)` for each item in `[0, num_items)`, on the caller's thread and
/// those of the pool that are free. No two calls share a worker number, in `[0, num_workers)`, at
/// the same time.
///
/// The caller takes items too, and in the end waits only for those that somebody has begun. So it
/// returns even if no thread of the pool is ever free: it may be called on one of them.
///
/// `function` must not throw.
template <typename Function>
void parallel_for(ffi::ThreadPool& pool, int64_t num_workers, int64_t num_items,
                  const Function& function) {
  struct Job {
    const Function* function;  // of the caller, who waits for all items: used only with one in hand
    int64_t num_items;
    std::atomic<int64_t> next_item = 0;
    std::atomic<int64_t> num_done = 0;

    void work(int64_t worker) {
      int64_t num_mine = 0;
      for (int64_t item; (item = next_item.fetch_add(1, std::memory_order_relaxed)) < num_items;) {
        (*function)(worker, item);
        ++num_mine;
      }
      num_done.fetch_add(num_mine, std::memory_order_release);
    }
  };
  // Shared, since a helper may start after the caller has left. It finds nothing to do then.
  const auto job = std::make_shared<Job>();
  job->function = &function;
  job->num_items = num_items;
  for (int64_t worker = 1; worker < std::min(num_workers, num_items); ++worker) {
    pool.Schedule([job, worker] { job->work(worker); });
  }
  job->work(0);
  while (job->num_done.load(std::memory_order_acquire) < num_items) std::this_thread::yield();
}

}  // namespace pagedkv
