#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "host_device.h"

// Inlined into functions for several instruction sets, where the loops become vector code. So there
// are no branches in them, and no calls.
#define PAGEDKV_ALWAYS_INLINE PAGEDKV_HOST_DEVICE __attribute__((always_inline)) inline

/// Floats of less than 32 bits as numbers, in plain arithmetic. Loops for CPUs and kernels for GPUs
/// are made of these, so that all give the same bits.
namespace pagedkv {

inline constexpr int kMantissaBits = 23, kBias = 127;
inline constexpr uint32_t kSign = 0x80000000u, kInfinity = 0x7f800000u;

struct Float32 {
  static constexpr int kBits = 32;
  static constexpr int64_t kBytes = 4;
  PAGEDKV_ALWAYS_INLINE static float load(const std::byte* from) {
    float value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }
  PAGEDKV_ALWAYS_INLINE static void store(std::byte* to, float value) {
    std::memcpy(to, &value, sizeof(value));
  }
};

struct Bfloat16 {
  static constexpr int kBits = 16;
  static constexpr int64_t kBytes = 2;
  PAGEDKV_ALWAYS_INLINE static float load(const std::byte* from) {
    uint16_t bits;
    std::memcpy(&bits, from, sizeof(bits));
    return std::bit_cast<float>(uint32_t{bits} << 16);
  }
  // Adding to a NaN could carry into infinity, so its bits are cut.
  PAGEDKV_ALWAYS_INLINE static void store(std::byte* to, float value) {
    const auto bits = std::bit_cast<uint32_t>(value);
    const bool is_nan = (bits & ~kSign) > kInfinity;
    const uint32_t rounded = is_nan ? bits | 0x400000u : bits + 0x7fffu + ((bits >> 16) & 1u);
    const auto half = static_cast<uint16_t>(rounded >> 16);
    std::memcpy(to, &half, sizeof(half));
  }
};

// A float of `kExponentBits` and `kFractionBits`, with infinities (as IEEE has them) or without (as
// e4m3fn, whose largest number has the exponent of infinity and whose only NaN has all bits).
template <int kExponentBits, int kFractionBits, bool kHasInfinity>
struct SmallFloat {
  static constexpr int kSmallBias = (1 << (kExponentBits - 1)) - 1;
  static constexpr int kShift = kMantissaBits - kFractionBits;
  static constexpr uint32_t kSignBit = 1u << (kExponentBits + kFractionBits);
  // The code from which on it is infinite or NaN.
  static constexpr uint32_t kFirstSpecial =
      kHasInfinity ? ((1u << kExponentBits) - 1) << kFractionBits : kSignBit - 1;

  // The code of a magnitude that rounds to a finite number: to nearest, ties to even. Of what is
  // larger it makes any bits.
  PAGEDKV_ALWAYS_INLINE static uint32_t round(uint32_t magnitude) {
    constexpr uint32_t kSmallestExponent = kBias + 1 - kSmallBias;
    constexpr uint32_t kSmallestNormal = kSmallestExponent << kMantissaBits;
    const uint32_t own = magnitude & kInfinity;
    const uint32_t exponent = own < kSmallestNormal ? kSmallestNormal : own;
    // In a sum with this power of two, a number keeps its first `kFractionBits` and is rounded.
    const uint32_t rounder = exponent + (uint32_t{kShift} << kMantissaBits);
    const float sum = std::bit_cast<float>(magnitude) + std::bit_cast<float>(rounder);
    const uint32_t fraction = std::bit_cast<uint32_t>(sum) - rounder;  // with the leading one
    return fraction + (exponent >> kShift) - (kSmallestExponent << kFractionBits);
  }

  PAGEDKV_ALWAYS_INLINE static float widen(uint32_t code) {
    const uint32_t magnitude = code & (kSignBit - 1);
    // XLA has the CPU take subnormal floats for zeros, so none may stand in between.
    constexpr float kUnit =
        std::bit_cast<float>(uint32_t{kBias + 1 - kSmallBias - kFractionBits} << kMantissaBits);
    const float subnormal = static_cast<float>(static_cast<int32_t>(magnitude)) * kUnit;
    const uint32_t normal = (magnitude << kShift) + (uint32_t{kBias - kSmallBias} << kMantissaBits);
    const uint32_t fraction = magnitude - kFirstSpecial;
    const uint32_t special =
        kInfinity | (kHasInfinity ? fraction << kShift : 1u << (kMantissaBits - 1));
    const uint32_t finite =
        magnitude < (1u << kFractionBits) ? std::bit_cast<uint32_t>(subnormal) : normal;
    const uint32_t bits = magnitude >= kFirstSpecial ? special : finite;
    return std::bit_cast<float>(bits | (code & kSignBit) << (31 - kExponentBits - kFractionBits));
  }
};

struct Float16 {
  static constexpr int kBits = 16;
  static constexpr int64_t kBytes = 2;
  using Small = SmallFloat<5, 10, true>;
  PAGEDKV_ALWAYS_INLINE static float load(const std::byte* from) {
    uint16_t bits;
    std::memcpy(&bits, from, sizeof(bits));
    return Small::widen(bits);
  }
  PAGEDKV_ALWAYS_INLINE static void store(std::byte* to, float value) {
    const auto bits = std::bit_cast<uint32_t>(value);
    const uint32_t sign = (bits & kSign) >> 16;
    const uint32_t rounded = Small::round(bits & ~kSign) & 0x7fffu;
    const bool is_nan = (bits & ~kSign) > kInfinity;
    // From 65520 on, which rounds to 2^16, and for infinity.
    const bool is_large = (bits & ~kSign) >= 0x477ff000u;
    const uint32_t code = is_nan ? 0x7e00u : is_large ? 0x7c00u : rounded;
    const auto half = static_cast<uint16_t>(code | sign);
    std::memcpy(to, &half, sizeof(half));
  }
};

}  // namespace pagedkv
