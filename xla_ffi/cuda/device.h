#pragma once

#include <cstdint>

/// What the handlers ask of a device. `kernels.cu` does it with CUDA; the tests do it with loops,
/// where there is no GPU.
struct CUstream_st;

namespace pagedkv::cuda {

/// A `cudaStream_t`: what it is given runs in order, after the call has returned.
using DeviceStream = CUstream_st*;

/// Runs `kernel(group, item)` for each item in `[0, kernel.num_items())`. Returns what is wrong, or
/// null.
template <typename Kernel>
const char* launch(DeviceStream stream, const Kernel& kernel);

/// Runs `kernel(scratch, item)` for each item, in a thread of its own, which has
/// `kernel.scratch_bytes()` of scratch memory. Returns what is wrong, or null.
template <typename Kernel>
const char* launch_columns(DeviceStream stream, const Kernel& kernel);

/// Bytes of scratch memory that the threads of one block have together.
inline constexpr int64_t kScratchBytes = int64_t{48} << 10;

/// Copies memory of the device. Returns what is wrong, or null.
const char* copy_bytes(DeviceStream stream, void* to, const void* from, int64_t num_bytes);

}  // namespace pagedkv::cuda
