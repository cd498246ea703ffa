#include "quantize_kernels.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace pagedkv {
namespace {

// Inlined into functions for several instruction sets, where the loops become vector code. So there
// are no branches in them, and no calls.
#define PAGEDKV_INLINE __attribute__((always_inline)) inline

constexpr int kMantissaBits = 23, kBias = 127;
constexpr uint32_t kSign = 0x80000000u, kInfinity = 0x7f800000u;

struct Float32 {
  static constexpr int64_t kBytes = 4;
  PAGEDKV_INLINE static float load(const std::byte* from) {
    float value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }
  PAGEDKV_INLINE static void store(std::byte* to, float value) {
    std::memcpy(to, &value, sizeof(value));
  }
};

struct Bfloat16 {
  static constexpr int64_t kBytes = 2;
  PAGEDKV_INLINE static float load(const std::byte* from) {
    uint16_t bits;
    std::memcpy(&bits, from, sizeof(bits));
    return std::bit_cast<float>(uint32_t{bits} << 16);
  }
  // Adding to a NaN could carry into infinity, so its bits are cut.
  PAGEDKV_INLINE static void store(std::byte* to, float value) {
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

  // To nearest, ties to even. A magnitude beyond the largest number becomes a special code or more.
  PAGEDKV_INLINE static uint32_t round(float value) {
    // Added to this, a number rounds to a multiple of the smallest one above zero.
    constexpr float kRounder = std::bit_cast<float>(
        uint32_t{kBias + 1 - kSmallBias - kFractionBits + kMantissaBits} << kMantissaBits);
    constexpr float kSmallestNormal =
        std::bit_cast<float>(uint32_t{kBias + 1 - kSmallBias} << kMantissaBits);
    const auto bits = std::bit_cast<uint32_t>(value);
    const uint32_t magnitude = bits & ~kSign;
    const auto absolute = std::bit_cast<float>(magnitude);
    const uint32_t subnormal =
        std::bit_cast<uint32_t>(absolute + kRounder) - std::bit_cast<uint32_t>(kRounder);
    const uint32_t half = (1u << (kShift - 1)) - 1 + ((magnitude >> kShift) & 1u);
    const uint32_t normal =
        ((magnitude + half) >> kShift) - (uint32_t{kBias - kSmallBias} << kFractionBits);
    const uint32_t code = absolute < kSmallestNormal ? subnormal : normal;
    return code | (bits & kSign) >> (31 - kExponentBits - kFractionBits);
  }

  PAGEDKV_INLINE static float widen(uint32_t code) {
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
  static constexpr int64_t kBytes = 2;
  using Small = SmallFloat<5, 10, true>;
  PAGEDKV_INLINE static float load(const std::byte* from) {
    uint16_t bits;
    std::memcpy(&bits, from, sizeof(bits));
    return Small::widen(bits);
  }
  PAGEDKV_INLINE static void store(std::byte* to, float value) {
    const auto bits = std::bit_cast<uint32_t>(value);
    const uint32_t sign = (bits & kSign) >> 16;
    const uint32_t rounded = Small::round(value) & 0x7fffu;
    const bool is_nan = (bits & ~kSign) > kInfinity;
    // From 65520 on, which rounds to 2^16, and for infinity.
    const bool is_large = (bits & ~kSign) >= 0x477ff000u;
    const uint32_t code = is_nan ? 0x7e00u : is_large ? 0x7c00u : rounded;
    const auto half = static_cast<uint16_t>(code | sign);
    std::memcpy(to, &half, sizeof(half));
  }
};

PAGEDKV_INLINE float clamp(float value, float limit) {
  const float high = value < limit ? value : limit;
  return high > -limit ? high : -limit;
}

// To the nearest whole number, ties to even. Requires |value| < 2^22.
PAGEDKV_INLINE int32_t nearest(float value) {
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23
  return std::bit_cast<int32_t>(value + kRounder) - std::bit_cast<int32_t>(kRounder);
}

struct Int8 {
  static constexpr int kBits = 8;
  PAGEDKV_INLINE static uint32_t code(float value) {
    return static_cast<uint32_t>(nearest(clamp(value, largest_code(CodeType::kInt8)))) & 0xffu;
  }
  PAGEDKV_INLINE static float value(uint32_t code) {
    return static_cast<float>(static_cast<int8_t>(code));
  }
};

struct Int4 {
  static constexpr int kBits = 4;
  PAGEDKV_INLINE static uint32_t code(float value) {
    return static_cast<uint32_t>(nearest(clamp(value, largest_code(CodeType::kInt4)))) & 0xfu;
  }
  PAGEDKV_INLINE static float value(uint32_t code) {
    return static_cast<float>(static_cast<int32_t>(code << 28) >> 28);
  }
};

template <CodeType kType, typename Small>
struct Float8 {
  static constexpr int kBits = 8;
  PAGEDKV_INLINE static uint32_t code(float value) {
    return Small::round(clamp(value, largest_code(kType)));
  }
  PAGEDKV_INLINE static float value(uint32_t code) { return Small::widen(code); }
};
using E4m3 = Float8<CodeType::kE4m3, SmallFloat<4, 3, false>>;
using E5m2 = Float8<CodeType::kE5m2, SmallFloat<5, 2, true>>;

template <typename Float>
PAGEDKV_INLINE float largest_of(const std::byte* row, int64_t size) {
  // Of magnitudes, the order of the bits is that of the numbers; NaNs are above all.
  uint32_t most = 0;
  for (int64_t i = 0; i < size; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(Float::load(row + i * Float::kBytes)) & ~kSign;
    most = bits > most ? bits : most;
  }
  return std::bit_cast<float>(most);
}

template <typename Float, typename Code>
PAGEDKV_INLINE void quantize_row(const std::byte* row, int64_t size, float factor,
                                 std::byte* codes) {
  if constexpr (Code::kBits == 8) {
    for (int64_t i = 0; i < size; ++i) {
      codes[i] = static_cast<std::byte>(Code::code(Float::load(row + i * Float::kBytes) * factor));
    }
  } else {
    for (int64_t i = 0; i < size; i += 2) {
      const uint32_t low = Code::code(Float::load(row + i * Float::kBytes) * factor);
      const uint32_t high = Code::code(Float::load(row + (i + 1) * Float::kBytes) * factor);
      codes[i / 2] = static_cast<std::byte>(low | high << 4);
    }
  }
}

template <typename Code, typename Float>
PAGEDKV_INLINE void dequantize_row(const std::byte* codes, int64_t size, float scale,
                                   std::byte* row) {
  if constexpr (Code::kBits == 8) {
    for (int64_t i = 0; i < size; ++i) {
      const float value = Code::value(static_cast<uint32_t>(codes[i]));
      Float::store(row + i * Float::kBytes, value * scale);
    }
  } else {
    for (int64_t i = 0; i < size; i += 2) {
      const auto both = static_cast<uint32_t>(codes[i / 2]);
      Float::store(row + i * Float::kBytes, Code::value(both & 15u) * scale);
      Float::store(row + (i + 1) * Float::kBytes, Code::value(both >> 4) * scale);
    }
  }
}

PAGEDKV_INLINE float largest_any(FloatType type, const std::byte* row, int64_t size) {
  switch (type) {
    case FloatType::kF32:
      return largest_of<Float32>(row, size);
    case FloatType::kF16:
      return largest_of<Float16>(row, size);
    default:
      return largest_of<Bfloat16>(row, size);
  }
}

template <typename Float>
PAGEDKV_INLINE void quantize_to(CodeType code, const std::byte* row, int64_t size, float factor,
                                std::byte* codes) {
  switch (code) {
    case CodeType::kInt8:
      return quantize_row<Float, Int8>(row, size, factor, codes);
    case CodeType::kInt4:
      return quantize_row<Float, Int4>(row, size, factor, codes);
    case CodeType::kE4m3:
      return quantize_row<Float, E4m3>(row, size, factor, codes);
    default:
      return quantize_row<Float, E5m2>(row, size, factor, codes);
  }
}

PAGEDKV_INLINE void quantize_any(FloatType type, CodeType code, const std::byte* row, int64_t size,
                                 float factor, std::byte* codes) {
  switch (type) {
    case FloatType::kF32:
      return quantize_to<Float32>(code, row, size, factor, codes);
    case FloatType::kF16:
      return quantize_to<Float16>(code, row, size, factor, codes);
    default:
      return quantize_to<Bfloat16>(code, row, size, factor, codes);
  }
}

template <typename Float>
PAGEDKV_INLINE void dequantize_from(CodeType code, const std::byte* codes, int64_t size,
                                    float scale, std::byte* row) {
  switch (code) {
    case CodeType::kInt8:
      return dequantize_row<Int8, Float>(codes, size, scale, row);
    case CodeType::kInt4:
      return dequantize_row<Int4, Float>(codes, size, scale, row);
    case CodeType::kE4m3:
      return dequantize_row<E4m3, Float>(codes, size, scale, row);
    default:
      return dequantize_row<E5m2, Float>(codes, size, scale, row);
  }
}

PAGEDKV_INLINE void dequantize_any(CodeType code, FloatType type, const std::byte* codes,
                                   int64_t size, float scale, std::byte* row) {
  switch (type) {
    case FloatType::kF32:
      return dequantize_from<Float32>(code, codes, size, scale, row);
    case FloatType::kF16:
      return dequantize_from<Float16>(code, codes, size, scale, row);
    default:
      return dequantize_from<Bfloat16>(code, codes, size, scale, row);
  }
}

// The same three functions for an instruction set.
#define PAGEDKV_KERNELS(name, attribute)                                                  \
  attribute float largest_##name(FloatType type, const std::byte* row, int64_t size) {    \
    return largest_any(type, row, size);                                                  \
  }                                                                                       \
  attribute void quantize_##name(FloatType type, CodeType code, const std::byte* row,     \
                                 int64_t size, float factor, std::byte* codes) {          \
    quantize_any(type, code, row, size, factor, codes);                                   \
  }                                                                                       \
  attribute void dequantize_##name(CodeType code, FloatType type, const std::byte* codes, \
                                   int64_t size, float scale, std::byte* row) {           \
    dequantize_any(code, type, codes, size, scale, row);                                  \
  }                                                                                       \
  constexpr QuantizeKernels kernels_##name{largest_##name, quantize_##name, dequantize_##name};

PAGEDKV_KERNELS(portable, )
#if defined(__x86_64__)
PAGEDKV_KERNELS(avx2, __attribute__((target("avx2"))))
#endif

}  // namespace

std::optional<FloatType> float_type(ffi::DataType dtype) {
  if (dtype == ffi::F32) return FloatType::kF32;
  if (dtype == ffi::F16) return FloatType::kF16;
  if (dtype == ffi::BF16) return FloatType::kBf16;
  return std::nullopt;
}

std::optional<CodeType> code_type(ffi::DataType dtype) {
  if (dtype == ffi::S8) return CodeType::kInt8;
  if (dtype == ffi::S4) return CodeType::kInt4;
  if (dtype == ffi::F8E4M3FN) return CodeType::kE4m3;
  if (dtype == ffi::F8E5M2) return CodeType::kE5m2;
  return std::nullopt;
}

const QuantizeKernels& quantize_kernels() {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  if (has_avx2) return kernels_avx2;
#endif
  return kernels_portable;
}

}  // namespace pagedkv
