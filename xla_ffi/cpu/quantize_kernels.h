#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "xla/ffi/api/ffi.h"

/// Rows of floats to rows of codes and back, without any XLA in it but its names of dtypes. Plain
/// loops, compiled for several instruction sets; all give the same bits.
namespace pagedkv {

namespace ffi = xla::ffi;

/// What is quantised.
enum class FloatType : uint8_t { kF32, kF16, kBf16 };

/// What it becomes. Codes of 4 bits lie two in a byte, the first in the lower half.
enum class CodeType : uint8_t { kInt8, kInt4, kE4m3, kE5m2 };

std::optional<FloatType> float_type(ffi::DataType dtype);
std::optional<CodeType> code_type(ffi::DataType dtype);

/// Bytes of an element.
constexpr int64_t float_bytes(FloatType type) { return type == FloatType::kF32 ? 4 : 2; }
/// Bits of a code.
constexpr int64_t code_bits(CodeType type) { return type == CodeType::kInt4 ? 4 : 8; }

/// The largest number that a code stands for.
constexpr float largest_code(CodeType type) {
  switch (type) {
    case CodeType::kInt8:
      return 127;
    case CodeType::kInt4:
      return 7;
    case CodeType::kE4m3:
      return 448;
    default:
      return 57344;
  }
}

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
