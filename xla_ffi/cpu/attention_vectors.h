#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "float_formats.h"

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

// kWidth elements of a format as floats.
template <typename Format>
PAGEDKV_INLINE Floats load_floats(const std::byte* from) {
  Floats vector;
  for (int i = 0; i < kWidth; ++i) vector[i] = Format::load(from + i * Format::kBytes);
  return vector;
}

template <>
PAGEDKV_INLINE Floats load_floats<Float32>(const std::byte* from) {
  return load_as<Floats>(from);
}

template <>
PAGEDKV_INLINE Floats load_floats<Bfloat16>(const std::byte* from) {
  const Words words = __builtin_convertvector(load_as<HalfWords>(from), Words);
  return reinterpret_cast<Floats>(words << 16);
}

#if defined(__x86_64__) && PAGEDKV_VECTOR_BYTES == 32
template <>
PAGEDKV_INLINE Floats load_floats<Float16>(const std::byte* from) {
  return _mm256_cvtph_ps(load_as<__m128i>(from));
}
#elif defined(__x86_64__) && PAGEDKV_VECTOR_BYTES == 64
template <>
PAGEDKV_INLINE Floats load_floats<Float16>(const std::byte* from) {
  return _mm512_maskz_cvtph_ps(0xffff, load_as<__m256i>(from));
}
#elif defined(__aarch64__)
template <>
PAGEDKV_INLINE Floats load_floats<Float16>(const std::byte* from) {
  return reinterpret_cast<Floats>(vcvt_f32_f16(load_as<float16x4_t>(from)));
}
#endif

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
