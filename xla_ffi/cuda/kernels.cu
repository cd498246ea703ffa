#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "dequantize_pages.h"
#include "device.h"
#include "page_pairs.h"
#include "page_runs.h"
#include "quantize_rows.h"
#include "warp.h"
#include "write_rows.h"

namespace pagedkv::cuda {
namespace {

constexpr int kThreads = 256;
// Enough to fill any device many times over; what is left each takes in turns.
constexpr int64_t kMaxBlocks = 1 << 16;

// The size of a grid follows from shapes alone, so that a recorded command buffer can be replayed.
int num_blocks(int64_t num_items, int64_t items_per_block) {
  return static_cast<int>(
      std::min(kMaxBlocks, (num_items + items_per_block - 1) / items_per_block));
}

// What the last launch came to: nothing waits for the kernel itself.
const char* last_error() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

template <typename Kernel>
__global__ void __launch_bounds__(kThreads)
    run(const __grid_constant__ Kernel kernel, int64_t num_items) {
  const Warp warp(static_cast<int>(threadIdx.x) % Warp::kSize);
  const int64_t warps = int64_t{gridDim.x} * (kThreads / Warp::kSize);
  int64_t item =
      int64_t{blockIdx.x} * (kThreads / Warp::kSize) + static_cast<int>(threadIdx.x) / Warp::kSize;
  for (; item < num_items; item += warps) kernel(warp, item);
}

// The scratch memory of a thread: in turns with those of its neighbours, so that they access
// neighbouring banks.
class Scratch {
 public:
  __device__ Scratch(std::byte* block, int thread, int num_threads)
      : block_(block), thread_(thread), num_threads_(num_threads) {}

  template <typename Unit>
  __device__ std::byte* at(int64_t i) const {
    return block_ + (i * num_threads_ + thread_) * static_cast<int64_t>(sizeof(Unit));
  }

 private:
  std::byte* block_;
  int thread_;
  int num_threads_;
};

template <typename Kernel>
__global__ void run_columns(const __grid_constant__ Kernel kernel, int64_t num_items) {
  extern __shared__ __align__(16) std::byte block[];
  const Scratch scratch(block, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x));
  const int64_t threads = int64_t{gridDim.x} * blockDim.x;
  for (int64_t item = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; item < num_items;
       item += threads) {
    kernel(scratch, item);
  }
}

}  // namespace

template <typename Kernel>
const char* launch(DeviceStream stream, const Kernel& kernel) {
  const int64_t num_items = kernel.num_items();
  if (num_items == 0) return nullptr;
  run<<<num_blocks(num_items, kThreads / Warp::kSize), kThreads, 0, stream>>>(kernel, num_items);
  return last_error();
}

template <typename Kernel>
const char* launch_columns(DeviceStream stream, const Kernel& kernel) {
  const int64_t num_items = kernel.num_items();
  if (num_items == 0) return nullptr;
  int64_t threads = std::min<int64_t>(kThreads, kScratchBytes / kernel.scratch_bytes());
  if (threads > Warp::kSize) threads -= threads % Warp::kSize;
  run_columns<<<num_blocks(num_items, threads), static_cast<int>(threads),
                static_cast<size_t>(threads * kernel.scratch_bytes()), stream>>>(kernel, num_items);
  return last_error();
}

const char* copy_bytes(DeviceStream stream, void* to, const void* from, int64_t num_bytes) {
  const cudaError_t error =
      cudaMemcpyAsync(to, from, static_cast<size_t>(num_bytes), cudaMemcpyDeviceToDevice, stream);
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

template const char* launch(DeviceStream, const WriteRows&);
template const char* launch(DeviceStream, const QuantizeRows&);
template const char* launch(DeviceStream, const DequantizePages&);
template const char* launch(DeviceStream, const MovePages<true>&);
template const char* launch(DeviceStream, const MovePages<false>&);
template const char* launch(DeviceStream, const CountPairs&);
template const char* launch_columns(DeviceStream, const CopyPairs&);

}  // namespace pagedkv::cuda
