#pragma once

#include <concepts>
#include <limits>
#include <optional>

namespace pagedkv {

/// Smallest `q` with `q * divisor >= value`. Requires `value >= 0` and `divisor > 0`.
///
/// Never overflows: it does not form `value + divisor - 1`.
template <std::integral T>
constexpr T ceil_div(T value, T divisor) {
  return static_cast<T>(value / divisor + (value % divisor != 0));
}

/// Largest multiple of `unit` that is `<= value`. Requires `value >= 0` and `unit > 0`.
template <std::integral T>
constexpr T round_down(T value, T unit) {
  return static_cast<T>(value - value % unit);
}

/// `a * b`, or nothing if it does not fit in `T`. Requires `a >= 0` and `b >= 0`.
template <std::integral T>
constexpr std::optional<T> checked_mul(T a, T b) {
  if (b != 0 && a > std::numeric_limits<T>::max() / b) return std::nullopt;
  return static_cast<T>(a * b);
}

/// `a + b`, or the largest `T` if it does not fit. Requires `a >= 0` and `b >= 0`.
template <std::integral T>
constexpr T saturating_add(T a, T b) {
  return a > std::numeric_limits<T>::max() - b ? std::numeric_limits<T>::max()
                                               : static_cast<T>(a + b);
}

}  // namespace pagedkv
