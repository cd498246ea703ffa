#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "number_types.h"
#include "xla/ffi/api/ffi.h"

/// Rows of floats to rows of codes and back, without any XLA in it but its names of dtypes. Plain
/// loops, compiled for several instruction sets; all give the same bits.
namespace pagedkv {

namespace ffi = xla::ffi;

std::optional<FloatType> float_type(ffi::DataType dtype);
std::optional<CodeType> code_type(ffi::DataType dtype);

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
