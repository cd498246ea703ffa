#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "checks.h"
#include "ids.h"
#include "inline_vector.h"
#include "kv_layout.h"
#include "number_types.h"
#include "page_view.h"
#include "scale_layout.h"
#include "write_checks.h"

/// What the ops on quantised pools ask of dtypes and shapes, on any platform.
namespace pagedkv {

/// What the rows of one stream are made of.
struct QuantizedRows {
  FloatType float_type;
  CodeType code_type;
  int64_t dim;
};

/// A write of rows that are quantised on their way.
struct CheckedQuantizedWrite {
  const CheckedWrite* write;              // by head; until the next call on this thread
  InlineVector<ScaleGeometry, 2> scales;  // by pool
  std::array<QuantizedRows, 2> rows;      // by stream
};

/// Reads pools with their scales, the results that alias them, and new rows. Fails, in mode
/// "raise", also if an id is out of range; in mode "drop" it looks at none.
ffi::ErrorOr<CheckedQuantizedWrite> check_write_quantized(
    std::string_view operation, const ffi::AnyBuffer& slot_mapping, const ffi::AnyBuffer& layer,
    const ffi::AnyBuffer& num_dropped, const KvLayout& layout,
    std::span<const ffi::AnyBuffer> pools, std::span<const ffi::AnyBuffer> scales,
    std::span<const ffi::AnyBuffer> rows, std::span<const ffi::AnyBuffer> results, bool layered,
    Mode mode);

/// A read of pages whose codes become numbers on their way. Looks at no id.
struct CheckedDequantize {
  Shape batch;      // of num_dropped
  Shape ids_batch;  // of page_ids
  PoolGeometry pool;
  ScaleGeometry scales;
  PageView view;  // of the pool
  CodeType code_type;
  FloatType float_type;
  size_t num_batches;
  size_t num_ids;      // of one element of the batch
  bool is_transposed;  // the last axis is of tokens
  int64_t run_size;    // codes in a row that share a scale
};

ffi::ErrorOr<CheckedDequantize> check_gather_dequantized(
    std::string_view operation, const ffi::AnyBuffer& pages, const ffi::AnyBuffer& scales,
    const ffi::AnyBuffer& page_ids, const ffi::AnyBuffer& layer, const ffi::AnyBuffer& rows,
    const ffi::AnyBuffer& num_dropped, const KvLayout& layout, bool layered);

}  // namespace pagedkv
