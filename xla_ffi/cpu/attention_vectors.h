#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "attention_kernel.h"
#include "number_codes.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

/// Vectors of floats. A text that the sources of the attention kernel include, each for its
/// instruction set: they define PAGEDKV_TARGET, the attribute of every function here, and
/// PAGEDKV_VECTOR_BYTES. A lambda would not inherit the attribute, and a function without it would
/// not be inlined, so there are none.
#define PAGEDKV_INLINE PAGEDKV_TARGET __attribute__((always_inline)) inline

namespace pagedkv {
namespace {

constexpr int kWidth = PAGEDKV_VECTOR_BYTES / sizeof(float);
constexpr int kLaneWidth = 4;  // shuffles stay inside 16 bytes, where they are cheap

typedef float Floats __attribute__((vector_size(PAGEDKV_VECTOR_BYTES)));
typedef int32_t Ints __attribute__((vector_size(PAGEDKV_VECTOR_BYTES)));
typedef uint32_t Words __attribute__((vector_size(PAGEDKV_VECTOR_BYTES)));
typedef uint16_t HalfWords __attribute__((vector_size(PAGEDKV_VECTOR_BYTES / 2)));
typedef int8_t Bytes __attribute__((vector_size(PAGEDKV_VECTOR_BYTES / 4)));
typedef float Lane __attribute__((vector_size(kLaneWidth * sizeof(float))));

template <typename Vector, typename T>
PAGEDKV_INLINE Vector load_as(const T* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof(vector));
  return vector;
}

PAGEDKV_INLINE Floats load(const float* from) { return load_as<Floats>(from); }

template <typename Vector>
PAGEDKV_INLINE void store(float* to, Vector vector) {
  std::memcpy(to, &vector, sizeof(vector));
}

PAGEDKV_INLINE Floats broadcast(float value) { return value - Floats{}; }

// Element `i` of a row.
template <typename Format>
PAGEDKV_INLINE float element(const std::byte* row, int64_t i) {
  if constexpr (Format::kBits == 4) {
    return Format::value(static_cast<uint32_t>(row[i / 2]) >> (i % 2 * 4) & 15u);
  } else if constexpr (Format::kBits == 8) {
    return Format::value(static_cast<uint32_t>(row[i]));
  } else {
    return Format::load(row + i * Format::kBytes);
  }
}

// kWidth elements from element `i` on, a multiple of it, as floats. The specialisations below do it
// in fewer instructions than the compiler finds.
template <typename Format>
PAGEDKV_INLINE Floats load_at(const std::byte* row, int64_t i) {
  Floats vector;
  for (int at = 0; at < kWidth; ++at) vector[at] = element<Format>(row, i + at);
  return vector;
}

template <>
PAGEDKV_INLINE Floats load_at<Float32>(const std::byte* row, int64_t i) {
  return load_as<Floats>(row + 4 * i);
}

template <>
PAGEDKV_INLINE Floats load_at<Bfloat16>(const std::byte* row, int64_t i) {
#if defined(__x86_64__) && PAGEDKV_VECTOR_BYTES == 32
  const auto words = reinterpret_cast<Words>(_mm256_cvtepu16_epi32(load_as<__m128i>(row + 2 * i)));
#else
  const Words words = __builtin_convertvector(load_as<HalfWords>(row + 2 * i), Words);
#endif
  return reinterpret_cast<Floats>(words << 16);
}

#if defined(__x86_64__) && PAGEDKV_VECTOR_BYTES == 32

PAGEDKV_INLINE const __m128i_u* as_words(const std::byte* from) {
  return reinterpret_cast<const __m128i_u*>(from);
}

template <>
PAGEDKV_INLINE Floats load_at<Float16>(const std::byte* row, int64_t i) {
  return _mm256_cvtph_ps(load_as<__m128i>(row + 2 * i));
}

template <>
PAGEDKV_INLINE Floats load_at<Int8>(const std::byte* row, int64_t i) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(as_words(row + i))));
}

template <>
PAGEDKV_INLINE Floats load_at<Int4>(const std::byte* row, int64_t i) {
  const __m256i shifts = _mm256_setr_epi32(28, 24, 20, 16, 12, 8, 4, 0);
  const __m256i codes = _mm256_set1_epi32(load_as<int32_t>(row + i / 2));
  return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_sllv_epi32(codes, shifts), 28));
}

// The upper half of a float16.
template <>
PAGEDKV_INLINE Floats load_at<E5m2>(const std::byte* row, int64_t i) {
  const __m128i codes = _mm_cvtepu8_epi16(_mm_loadl_epi64(as_words(row + i)));
  return _mm256_cvtph_ps(_mm_slli_epi16(codes, 8));
}

// Its magnitude is that of a float16 2^8 times as small, but for NaN.
template <>
PAGEDKV_INLINE Floats load_at<E4m3>(const std::byte* row, int64_t i) {
  const __m128i codes = _mm_cvtepi8_epi16(_mm_loadl_epi64(as_words(row + i)));
  const __m128i magnitude = _mm_and_si128(codes, _mm_set1_epi16(0x7f));
  const __m128i sign = _mm_and_si128(codes, _mm_set1_epi16(-0x8000));
  const __m128i half = _mm_or_si128(sign, _mm_slli_epi16(magnitude, 7));
  const __m128i is_nan = _mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7f));
  return _mm256_cvtph_ps(_mm_or_si128(half, _mm_and_si128(is_nan, _mm_set1_epi16(0x7e00)))) *
         256.0f;
}

#elif defined(__x86_64__) && PAGEDKV_VECTOR_BYTES == 64

template <>
PAGEDKV_INLINE Floats load_at<Float16>(const std::byte* row, int64_t i) {
  return _mm512_maskz_cvtph_ps(0xffff, load_as<__m256i>(row + 2 * i));
}

template <>
PAGEDKV_INLINE Floats load_at<Int8>(const std::byte* row, int64_t i) {
  return __builtin_convertvector(load_as<Bytes>(row + i), Floats);
}

#elif defined(__aarch64__)

template <>
PAGEDKV_INLINE Floats load_at<Float16>(const std::byte* row, int64_t i) {
  return reinterpret_cast<Floats>(vcvt_f32_f16(load_as<float16x4_t>(row + 2 * i)));
}

#endif

// The formats that load_at reads well enough for the arithmetic to read rows where they are. Rows
// of others are copied as floats first, which also bounds how much code there is.
#if defined(__x86_64__) && PAGEDKV_VECTOR_BYTES == 32
constexpr bool kLoadsHalfs = true, kLoadsInt8 = true, kLoadsCodes = true;
#elif defined(__x86_64__) && PAGEDKV_VECTOR_BYTES == 64
constexpr bool kLoadsHalfs = true, kLoadsInt8 = true, kLoadsCodes = false;
#elif defined(__aarch64__)
constexpr bool kLoadsHalfs = true, kLoadsInt8 = false, kLoadsCodes = false;
#else
constexpr bool kLoadsHalfs = false, kLoadsInt8 = false, kLoadsCodes = false;
#endif

PAGEDKV_INLINE bool is_direct(RowFormat format) {
  switch (format) {
    case RowFormat::kF32:
    case RowFormat::kBf16:
      return true;
    case RowFormat::kF16:
      return kLoadsHalfs;
    case RowFormat::kInt8:
      return kLoadsInt8;
    default:
      return kLoadsCodes;
  }
}

// In each 16 bytes: the first or last two floats of both, taken in turns or one after the other.
constexpr int interleaved(int i, int half) {
  const int lane = i / kLaneWidth, at = i % kLaneWidth;
  return (at % 2) * kWidth + lane * kLaneWidth + 2 * half + at / 2;
}
constexpr int joined(int i, int half) {
  const int lane = i / kLaneWidth, at = i % kLaneWidth;
  return (at / 2) * kWidth + lane * kLaneWidth + 2 * half + at % 2;
}

template <int... kI>
PAGEDKV_INLINE Floats add_interleaved(Floats a, Floats b, std::integer_sequence<int, kI...>) {
  return __builtin_shufflevector(a, b, interleaved(kI, 0)...) +
         __builtin_shufflevector(a, b, interleaved(kI, 1)...);
}

template <int... kI>
PAGEDKV_INLINE Floats add_joined(Floats a, Floats b, std::integer_sequence<int, kI...>) {
  return __builtin_shufflevector(a, b, joined(kI, 0)...) +
         __builtin_shufflevector(a, b, joined(kI, 1)...);
}

// The sum of each of four vectors.
PAGEDKV_INLINE Lane sums(Floats a, Floats b, Floats c, Floats d) {
  constexpr std::make_integer_sequence<int, kWidth> kAll;
  const Floats in_lanes =
      add_joined(add_interleaved(a, b, kAll), add_interleaved(c, d, kAll), kAll);
  float lanes[kWidth];
  store(lanes, in_lanes);
  Lane sum = load_as<Lane>(lanes);
  for (int at = kLaneWidth; at < kWidth; at += kLaneWidth) sum += load_as<Lane>(lanes + at);
  return sum;
}

PAGEDKV_INLINE float largest(Floats vector) {
  float values[kWidth];
  store(values, vector);
  float result = values[0];
  for (int i = 1; i < kWidth; ++i) result = values[i] > result ? values[i] : result;
  return result;
}

PAGEDKV_INLINE float sum(Floats vector) {
  float values[kWidth];
  store(values, vector);
  float result = values[0];
  for (int i = 1; i < kWidth; ++i) result += values[i];
  return result;
}

// e^x for x <= 0, to 1e-7 of it: x = n ln 2 + r, and a polynomial for e^r (Cephes). Below
// kSmallestExponent, where the result would be denormal, it is 0. A NaN stays one.
PAGEDKV_INLINE Floats exponential(Floats x) {
  constexpr float kSmallestExponent = -87.33654f;
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: what is added to it becomes whole

  const auto underflows = x < kSmallestExponent;
  const Floats clamped = underflows ? broadcast(kSmallestExponent) : x;
  const Floats n = (clamped * kLog2E + kRounder) - kRounder;
  const Floats r = (clamped - n * kLn2High) - n * kLn2Low;
  Floats polynomial = broadcast(1.9875691500e-4f);
  polynomial = polynomial * r + 1.3981999507e-3f;
  polynomial = polynomial * r + 8.3334519073e-3f;
  polynomial = polynomial * r + 4.1665795894e-2f;
  polynomial = polynomial * r + 1.6666665459e-1f;
  polynomial = polynomial * r + 5.0000001201e-1f;
  const Floats e_r = polynomial * (r * r) + r + 1.0f;
  const Ints exponent = (__builtin_convertvector(n, Ints) + kBias) << kMantissaBits;
  return underflows ? Floats{} : e_r * reinterpret_cast<Floats>(exponent);
}

// tanh to 2e-7 of it: from e^(-2|x|), and near 0, where that would cancel, the first terms of its
// series. A NaN stays one.
PAGEDKV_INLINE Floats hyperbolic_tangent(Floats x) {
  constexpr float kSmall = 0.25f;
  const Floats magnitude = x < 0.0f ? -x : x;
  const Floats square = x * x;
  Floats series = broadcast(62.0f / 2835.0f);
  series = series * square - 17.0f / 315.0f;
  series = series * square + 2.0f / 15.0f;
  series = series * square - 1.0f / 3.0f;
  series = series * square * x + x;
  const Floats e = exponential(-2.0f * magnitude);
  const Floats quotient = (1.0f - e) / (1.0f + e);
  const Floats signed_quotient = x < 0.0f ? -quotient : quotient;
  return magnitude < kSmall ? series : signed_quotient;
}

}  // namespace
}  // namespace pagedkv
