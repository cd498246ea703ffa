#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "checks.h"
#include "inline_vector.h"
#include "kv_layout.h"
#include "number_types.h"
#include "page_view.h"
#include "scale_layout.h"

/// What the ops on quantised pools ask of dtypes and shapes, on any platform.
namespace pagedkv {

/// What the rows of one stream are made of.
struct QuantizedRows {
  FloatType float_type;
  CodeType code_type;
  int64_t dim;
};

/// What a write takes besides its pools and rows, which are quantised on their way.
struct CheckedQuantization {
  InlineVector<ScaleGeometry, 2> scales;  // by pool
  std::array<QuantizedRows, 2> rows;      // by stream
};

/// Reads the scales of pools, the results that alias them, and what rows and pools are made of.
ffi::ErrorOr<CheckedQuantization> check_quantization(
    std::string_view operation, const ffi::AnyBuffer& layer, const KvLayout& layout,
    std::span<const ffi::AnyBuffer> pools, std::span<const ffi::AnyBuffer> scales,
    std::span<const ffi::AnyBuffer> new_scales, std::span<const ffi::AnyBuffer> rows, bool layered);

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
