#pragma once

#include <bit>
#include <cstdint>

#include "float_formats.h"
#include "host_device.h"
#include "number_codes.h"

/// What scale the numbers of a row need, and how that of a page grows.
namespace pagedkv {

/// Below this the reciprocal of a scale is infinite: such a row reads as zeros.
inline constexpr float kSmallestMagnitude = 1e-34f;

PAGEDKV_HOST_DEVICE inline bool is_finite(float value) {
  return (std::bit_cast<uint32_t>(value) & ~kSign) < kInfinity;
}

/// The scale that makes `largest` the largest code, or a NaN if that is not finite. A product, as
/// XLA makes of such a quotient.
PAGEDKV_HOST_DEVICE inline float scale_of(float largest, CodeType code) {
  if (!is_finite(largest)) return std::bit_cast<float>(0x7fc00000u);
  return largest < kSmallestMagnitude ? 0.0f : largest * (1.0f / largest_code(code));
}

/// What a row is multiplied with for a scale. A row with an infinity or a NaN has a scale that is
/// one too, and no finite code says more.
PAGEDKV_HOST_DEVICE inline float factor_of(float scale) {
  const float factor = scale == 0.0f ? 0.0f : 1.0f / scale;
  return is_finite(factor) ? factor : 0.0f;
}

/// The scale of a page that needs `needed` for its next row: at least that, and `before` times a
/// power of two. So floats lose nothing, and what whole numbers lose, each time half of the time
/// after, sums to less than one step.
///
/// What is not finite stays so until the page begins anew; so does what is below zero, which is not
/// of our making and would never be large enough.
PAGEDKV_HOST_DEVICE inline float grown_scale(float before, float needed) {
  if (before == 0.0f) return needed;
  if (!is_finite(before) || before < 0.0f || needed <= before) return before;
  if (!is_finite(needed)) return needed;
  float scale = before;
  while (scale < needed) scale *= 2;
  return scale;
}

}  // namespace pagedkv
