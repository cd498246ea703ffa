#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "float_formats.h"
#include "host_device.h"

/// What numbers become when they are quantised, one at a time. As the float formats, it is for CPUs
/// and GPUs alike. No XLA in it.
namespace pagedkv {

/// What is quantised.
enum class FloatType : uint8_t { kF32, kF16, kBf16 };

/// What it becomes. Codes of 4 bits lie two in a byte, the first in the lower half.
enum class CodeType : uint8_t { kInt8, kInt4, kE4m3, kE5m2 };

/// Bytes of an element.
PAGEDKV_HOST_DEVICE constexpr int64_t float_bytes(FloatType type) {
  return type == FloatType::kF32 ? 4 : 2;
}
/// Bits of a code.
PAGEDKV_HOST_DEVICE constexpr int64_t code_bits(CodeType type) {
  return type == CodeType::kInt4 ? 4 : 8;
}

/// The largest number that a code stands for.
PAGEDKV_HOST_DEVICE constexpr float largest_code(CodeType type) {
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

// Of the bits of magnitudes, whose order is that of the numbers, for which vector code has one
// instruction. A NaN becomes a limit too.
PAGEDKV_ALWAYS_INLINE uint32_t clamped_magnitude(float value, float limit) {
  const auto most = std::bit_cast<uint32_t>(limit);
  const uint32_t magnitude = std::bit_cast<uint32_t>(value) & ~kSign;
  return magnitude < most ? magnitude : most;
}

PAGEDKV_ALWAYS_INLINE float clamp(float value, float limit) {
  return std::bit_cast<float>(clamped_magnitude(value, limit) |
                              (std::bit_cast<uint32_t>(value) & kSign));
}

// To the nearest whole number, ties to even. Requires |value| < 2^22.
PAGEDKV_ALWAYS_INLINE int32_t nearest(float value) {
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23
  return std::bit_cast<int32_t>(value + kRounder) - std::bit_cast<int32_t>(kRounder);
}

struct Int8 {
  static constexpr int kBits = 8;
  PAGEDKV_ALWAYS_INLINE static uint32_t code(float value) {
    return static_cast<uint32_t>(nearest(clamp(value, largest_code(CodeType::kInt8)))) & 0xffu;
  }
  PAGEDKV_ALWAYS_INLINE static float value(uint32_t code) {
    return static_cast<float>(static_cast<int8_t>(code));
  }
};

struct Int4 {
  static constexpr int kBits = 4;
  PAGEDKV_ALWAYS_INLINE static uint32_t code(float value) {
    return static_cast<uint32_t>(nearest(clamp(value, largest_code(CodeType::kInt4)))) & 0xfu;
  }
  PAGEDKV_ALWAYS_INLINE static float value(uint32_t code) {
    return static_cast<float>(static_cast<int32_t>(code << 28) >> 28);
  }
};

template <CodeType kType, typename Small>
struct Float8 {
  static constexpr int kBits = 8;
  PAGEDKV_ALWAYS_INLINE static uint32_t code(float value) {
    const uint32_t sign = std::bit_cast<uint32_t>(value) >> 24 & 0x80u;
    return Small::round(clamped_magnitude(value, largest_code(kType))) | sign;
  }
  PAGEDKV_ALWAYS_INLINE static float value(uint32_t code) { return Small::widen(code); }
};
using E4m3 = Float8<CodeType::kE4m3, SmallFloat<4, 3, false>>;
using E5m2 = Float8<CodeType::kE5m2, SmallFloat<5, 2, true>>;

}  // namespace pagedkv
