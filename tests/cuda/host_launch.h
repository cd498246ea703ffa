#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <thread>
#include <type_traits>
#include <vector>

/// Runs the kernels of `xla_ffi/cuda` without a GPU: a loop in place of the warps. What may happen
/// in any order on a device happens in a scrambled one here. Under ThreadSanitizer two threads
/// share the items, so that it reports what would be a race between warps.
namespace pagedkv::cuda {

#if defined(__SANITIZE_THREAD__)
inline constexpr int kHostThreads = 2;
#else
inline constexpr int kHostThreads = 1;
#endif

/// Calls `function(i)` for each i in `[0, size)`, in an order that is none.
template <typename Function>
void for_each_scrambled(int64_t size, const Function& function) {
  if (size <= 0) return;
  int64_t step = size / 2 + 1;
  while (std::gcd(step, size) != 1) ++step;
  for (int64_t count = 0, i = size / 3; count < size; ++count) {
    function(i);
    i = (i + step) % size;
  }
}

/// Stands for a warp: a group of one thread that does the work of all.
class HostGroup {
 public:
  template <typename Function>
  void for_each(int64_t size, const Function& function) const {
    for_each_scrambled(size, function);
  }
  template <typename Test>
  bool any(int64_t size, const Test& test) const {
    return count(size, test) != 0;
  }
  template <typename Value>
  uint32_t max(int64_t size, const Value& value) const {
    uint32_t most = 0;
    for_each_scrambled(size, [&](int64_t i) { most = std::max<uint32_t>(most, value(i)); });
    return most;
  }
  template <typename Test>
  int32_t count(int64_t size, const Test& test) const {
    int32_t found = 0;
    for_each_scrambled(size, [&](int64_t i) { found += test(i) ? 1 : 0; });
    return found;
  }
  bool is_first() const { return true; }
  void sync() const {}
};

/// Stands for the scratch memory of one thread.
class HostScratch {
 public:
  explicit HostScratch(int64_t num_bytes)
      : memory_(new std::byte[static_cast<size_t>(num_bytes)]) {}

  template <typename Unit>
  std::byte* at(int64_t i) const {
    return memory_.get() + i * static_cast<int64_t>(sizeof(Unit));
  }

 private:
  std::unique_ptr<std::byte[]> memory_;
};

/// Calls `run(item)` for each item, on `kHostThreads` threads.
template <typename Run>
void run_items(int64_t num_items, const Run& run) {
  const auto run_share = [&](int64_t share) {
    for_each_scrambled(num_items, [&](int64_t item) {
      if (item % kHostThreads == share) run(item);
    });
  };
  if constexpr (kHostThreads == 1) return run_share(0);
  std::vector<std::thread> threads;
  for (int64_t share = 1; share < kHostThreads; ++share) threads.emplace_back(run_share, share);
  run_share(0);
  for (std::thread& thread : threads) thread.join();
}

/// Runs a kernel whose items are for a group.
template <typename Kernel>
void launch_on_host(const Kernel& kernel) {
  run_items(kernel.num_items(), [&](int64_t item) { kernel(HostGroup(), item); });
}

/// Runs a kernel whose items are for a thread.
template <typename Kernel>
void launch_columns_on_host(const Kernel& kernel) {
  run_items(kernel.num_items(),
            [&](int64_t item) { kernel(HostScratch(kernel.scratch_bytes()), item); });
}

}  // namespace pagedkv::cuda
