#include "quantize_kernels.h"

#include <bit>
#include <cstring>
#include <type_traits>

#include "number_codes.h"

namespace pagedkv {
namespace {

template <typename Float>
PAGEDKV_ALWAYS_INLINE float largest_of(const std::byte* row, int64_t size) {
  // Of magnitudes, the order of the bits is that of the numbers; NaNs are above all.
  using Bits = std::conditional_t<Float::kBytes == 2, uint16_t, uint32_t>;
  constexpr auto kMagnitude = static_cast<Bits>(Bits(~Bits{0}) >> 1);
  Bits most = 0;
  for (int64_t i = 0; i < size; ++i) {
    Bits bits;
    std::memcpy(&bits, row + i * Float::kBytes, sizeof(bits));
    bits &= kMagnitude;
    most = bits > most ? bits : most;
  }
  std::byte number[sizeof(most)];
  std::memcpy(number, &most, sizeof(most));
  return Float::load(number);
}

// Codes at a time: numbers become words, and words bytes, in two loops, of which a compiler makes
// half the instructions that it makes of one.
constexpr int64_t kGroup = 32;

PAGEDKV_ALWAYS_INLINE void narrow(const uint32_t* codes, std::byte* bytes) {
  for (int64_t i = 0; i < kGroup; ++i) bytes[i] = static_cast<std::byte>(codes[i]);
}

template <typename Float, typename Code>
PAGEDKV_ALWAYS_INLINE uint32_t code_at(const std::byte* row, int64_t i, float factor) {
  return Code::code(Float::load(row + i * Float::kBytes) * factor);
}

template <typename Float, typename Code>
PAGEDKV_ALWAYS_INLINE void quantize_row(const std::byte* row, int64_t size, float factor,
                                        std::byte* codes) {
  int64_t i = 0;
  for (; i + kGroup <= size; i += kGroup) {
    alignas(32) uint32_t group[kGroup];
    for (int64_t k = 0; k < kGroup; ++k) group[k] = code_at<Float, Code>(row, i + k, factor);
    if constexpr (Code::kBits == 8) {
      narrow(group, codes + i);
    } else {
      alignas(32) std::byte bytes[kGroup];
      narrow(group, bytes);
      for (int64_t k = 0; k < kGroup / 2; ++k) {
        uint16_t both;
        std::memcpy(&both, bytes + 2 * k, sizeof(both));
        codes[i / 2 + k] = static_cast<std::byte>(both | both >> 4);
      }
    }
  }
  for (; i < size; i += 8 / Code::kBits) {
    uint32_t code = code_at<Float, Code>(row, i, factor);
    if constexpr (Code::kBits == 4) code |= code_at<Float, Code>(row, i + 1, factor) << 4;
    codes[i * Code::kBits / 8] = static_cast<std::byte>(code);
  }
}

template <typename Code, typename Float>
PAGEDKV_ALWAYS_INLINE void dequantize_row(const std::byte* codes, int64_t size, float scale,
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

PAGEDKV_ALWAYS_INLINE float largest_any(FloatType type, const std::byte* row, int64_t size) {
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
PAGEDKV_ALWAYS_INLINE void quantize_to(CodeType code, const std::byte* row, int64_t size,
                                       float factor, std::byte* codes) {
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

PAGEDKV_ALWAYS_INLINE void quantize_any(FloatType type, CodeType code, const std::byte* row,
                                        int64_t size, float factor, std::byte* codes) {
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
PAGEDKV_ALWAYS_INLINE void dequantize_from(CodeType code, const std::byte* codes, int64_t size,
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

PAGEDKV_ALWAYS_INLINE void dequantize_any(CodeType code, FloatType type, const std::byte* codes,
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

const QuantizeKernels& quantize_kernels() {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  if (has_avx2) return kernels_avx2;
#endif
  return kernels_portable;
}

}  // namespace pagedkv
