#pragma once

#include <cstddef>
#include <cstdint>

#include "number_codes.h"

/// Rows of floats to rows of codes and back, without any XLA in it. Plain loops, compiled for
/// several instruction sets; all give the same bits.
namespace pagedkv {

struct QuantizeKernels {
  /// The largest magnitude in a row; infinite or NaN if an element is.
  float (*largest)(FloatType type, const std::byte* row, int64_t size);
  /// codes[i] = row[i] * factor, to the nearest code, ties to even; beyond the largest, the
  /// largest. A NaN becomes any code.
  void (*quantize)(FloatType type, CodeType code, const std::byte* row, int64_t size, float factor,
                   std::byte* codes);
  /// row[i] = codes[i] * scale, to the nearest, ties to even.
  void (*dequantize)(CodeType code, FloatType type, const std::byte* codes, int64_t size,
                     float scale, std::byte* row);
};

/// Those for this CPU.
const QuantizeKernels& quantize_kernels();

}  // namespace pagedkv
