#pragma once

#include <algorithm>
#include <cstdint>

#include "copy_bytes.h"
#include "parallel_for.h"

/// How a call that copies is spread over threads.
namespace pagedkv {

/// Threads that a call which copies `num_bytes` is worth.
inline int64_t num_copy_workers(const ffi::ThreadPool& threads, int64_t num_bytes) {
  return num_bytes < kParallelBytes ? 1 : std::max<int64_t>(1, threads.num_threads());
}

/// Calls `copy(part, num_parts)` for each part of a call that copies `num_bytes`. What is written
/// to pages congruent to `part` modulo `num_parts` is of one part, so that it can be written in
/// order.
template <typename Copy>
void for_parts(ffi::ThreadPool& threads, int64_t num_bytes, const Copy& copy) {
  // So that one with more rows than others delays nobody.
  constexpr int64_t kPartsPerThread = 2;
  const int64_t num_workers = num_copy_workers(threads, num_bytes);
  if (num_workers == 1) return copy(int64_t{0}, int64_t{1});
  const int64_t num_parts = num_workers * kPartsPerThread;
  parallel_for(threads, num_workers, num_parts,
               [&](int64_t, int64_t part) { copy(part, num_parts); });
}

}  // namespace pagedkv
