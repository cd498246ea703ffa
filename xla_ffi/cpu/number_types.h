#pragma once

#include <cstdint>

namespace pagedkv {

/// What is quantised.
enum class FloatType : uint8_t { kF32, kF16, kBf16 };

/// What it becomes. Codes of 4 bits lie two in a byte, the first in the lower half.
enum class CodeType : uint8_t { kInt8, kInt4, kE4m3, kE5m2 };

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

}  // namespace pagedkv
