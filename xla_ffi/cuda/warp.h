#pragma once

#include <cstdint>

#include "host_device.h"

/// The group of threads that works on one item of a kernel: a warp. Kernels are templates over it,
/// so that tests run them with a group of their own, without a GPU.
namespace pagedkv::cuda {

class Warp {
 public:
  static constexpr int kSize = 32;

  __device__ explicit Warp(int lane) : lane_(lane) {}

  /// Calls `function(i)` for each i in `[0, size)`, in any order and at the same time.
  template <typename Function>
  __device__ void for_each(int64_t size, const Function& function) const {
    PAGEDKV_UNROLL
    for (int64_t i = lane_; i < size; i += kSize) function(i);
  }

  /// Whether `test(i)` holds for an i in `[0, size)`. The same answer in all threads.
  template <typename Test>
  __device__ bool any(int64_t size, const Test& test) const {
    constexpr int kTestsAtOnce = 4;  // so that no load waits for another
    for (int64_t first = lane_; first - lane_ < size; first += kTestsAtOnce * kSize) {
      bool found = false;
#pragma unroll
      for (int j = 0; j < kTestsAtOnce; ++j) {
        const int64_t i = first + j * kSize;
        if (i < size) found |= test(i);
      }
      if (__any_sync(kAll, found)) return true;
    }
    return false;
  }

  /// The largest of `value(i)` for i in `[0, size)`, or 0. The same answer in all threads.
  template <typename Value>
  __device__ uint32_t max(int64_t size, const Value& value) const {
    uint32_t most = 0;
    for (int64_t i = lane_; i < size; i += kSize) {
      const uint32_t next = value(i);
      most = next > most ? next : most;
    }
    for (int distance = kSize / 2; distance > 0; distance /= 2) {
      const uint32_t other = __shfl_xor_sync(kAll, most, distance);
      most = other > most ? other : most;
    }
    return most;
  }

  /// How often `test(i)` holds for i in `[0, size)`. The same answer in all threads.
  template <typename Test>
  __device__ int32_t count(int64_t size, const Test& test) const {
    int32_t found = 0;
    PAGEDKV_UNROLL
    for (int64_t i = lane_; i < size; i += kSize) found += test(i) ? 1 : 0;
    for (int distance = kSize / 2; distance > 0; distance /= 2) {
      found += __shfl_xor_sync(kAll, found, distance);
    }
    return found;
  }

  /// Whether this thread does what is to be done once.
  __device__ bool is_first() const { return lane_ == 0; }

  /// What any of the threads wrote before, all of them see after.
  __device__ void sync() const { __syncwarp(kAll); }

 private:
  static constexpr unsigned kAll = 0xffffffffu;
  int lane_;
};

}  // namespace pagedkv::cuda
