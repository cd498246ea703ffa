#pragma once

#include <cstdint>

#include "host_device.h"

namespace pagedkv {

/// The row of one token of one stream: `num_runs` runs of `run_bytes` that lie `run_stride` bytes
/// apart in the pool, and back to back in the array of new rows. With `element_stride` other than
/// `element_bytes`, the elements of a run lie apart too.
struct RowGeometry {
  int64_t first;         // byte of the row in its token
  int64_t page_stride;   // bytes
  int64_t token_stride;  // bytes
  int64_t num_runs;
  int64_t run_bytes;
  int64_t run_stride;
  int64_t element_bytes;   // 0 under a byte
  int64_t element_stride;  // bytes
  int64_t page_size;

  PAGEDKV_HOST_DEVICE int64_t row_bytes() const { return num_runs * run_bytes; }
  PAGEDKV_HOST_DEVICE bool is_scattered() const { return element_stride != element_bytes; }
  /// First byte of the row of a slot, from the layer's. Requires a slot in range.
  PAGEDKV_HOST_DEVICE int64_t offset(int32_t slot) const {
    if (page_stride == page_size * token_stride) return slot * token_stride + first;
    const auto size = static_cast<uint32_t>(page_size), id = static_cast<uint32_t>(slot);
    return id / size * page_stride + id % size * token_stride + first;
  }
};

}  // namespace pagedkv
