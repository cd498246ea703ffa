#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "checks.h"
#include "page_view.h"

/// What the ops on whole pages ask of dtypes and shapes, on any platform. None looks at an id:
/// those are in the memory of the device.
namespace pagedkv {

/// A read of pages whose operands fit together.
struct CheckedGather {
  Shape batch;      // of num_dropped
  Shape ids_batch;  // of page_ids; broadcasts to that of num_dropped, as does the view's
  PageView view;    // of the pool
  size_t num_batches;
  size_t num_ids;  // of one element of the batch
};

ffi::ErrorOr<CheckedGather> check_gather(std::string_view operation, const ffi::AnyBuffer& pages,
                                         const ffi::AnyBuffer& page_ids,
                                         const ffi::AnyBuffer& layer, const ffi::AnyBuffer& rows,
                                         const ffi::AnyBuffer& num_dropped, bool layered,
                                         int64_t page_axis);

/// A write of pages. All its operands have the same batch axes.
struct CheckedScatter {
  PageView view;
  size_t num_batches;
  size_t num_ids;
};

ffi::ErrorOr<CheckedScatter> check_scatter(
    std::string_view operation, const ffi::AnyBuffer& pages, const ffi::AnyBuffer& rows,
    const ffi::AnyBuffer& page_ids, const ffi::AnyBuffer& layer, const ffi::AnyBuffer& new_pages,
    const ffi::AnyBuffer& num_dropped, bool layered, int64_t page_axis);

/// Pools that have pages in common, and the memory for what becomes of them.
struct CheckedPools {
  std::vector<ffi::AnyBuffer> before;
  std::vector<ffi::AnyBuffer> after;
  std::vector<PageView> views;
  size_t num_batches = 0;
  size_t num_ids = 0;     // of one element of the batch
  int64_t num_pages = 0;  // 0 without a pool
  int64_t row_bytes = 0;  // of a page in all pools

  /// First byte of a pool in the result, for an element of the batch.
  std::byte* pool(size_t index, size_t batch) const {
    return static_cast<std::byte*>(after[index].untyped_data()) +
           views[index].layer_offset(static_cast<int64_t>(batch), 0);
  }
  /// Bytes of a whole pool.
  int64_t pool_bytes(size_t index) const {
    return views[index].layer_offset(static_cast<int64_t>(num_batches), 0);
  }
};

ffi::ErrorOr<CheckedPools> check_copy(std::string_view operation, const ffi::AnyBuffer& source_ids,
                                      const ffi::AnyBuffer& target_ids,
                                      const ffi::RemainingArgs& pools,
                                      const ffi::AnyBuffer& num_dropped,
                                      const ffi::RemainingRets& new_pools, int64_t page_axis);

ffi::ErrorOr<CheckedPools> check_move(std::string_view operation, const ffi::AnyBuffer& page_ids,
                                      const ffi::AnyBuffer& rows, const ffi::RemainingArgs& pools,
                                      const ffi::RemainingRets& new_pools,
                                      const ffi::AnyBuffer& num_dropped, int64_t page_axis);

}  // namespace pagedkv
