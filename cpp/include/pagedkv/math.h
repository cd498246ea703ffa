#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
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
  T product = 0;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

/// `a + b`, or the largest `T` if it does not fit. Requires `a >= 0` and `b >= 0`.
template <std::integral T>
constexpr T saturating_add(T a, T b) {
  return a > std::numeric_limits<T>::max() - b ? std::numeric_limits<T>::max()
                                               : static_cast<T>(a + b);
}

/// Divides by one and the same number many times: by a shift, if it is a power of two.
class Divisor {
 public:
  /// Requires `divisor > 0`.
  explicit constexpr Divisor(std::int32_t divisor)
      : divisor_(divisor),
        shift_(std::has_single_bit(static_cast<std::uint32_t>(divisor))
                   ? std::countr_zero(static_cast<std::uint32_t>(divisor))
                   : -1) {}

  /// `value / divisor`, rounded down. Requires `value >= 0`.
  constexpr std::int32_t quotient(std::int32_t value) const {
    return shift_ < 0 ? value / divisor_ : value >> shift_;
  }

 private:
  std::int32_t divisor_;
  std::int32_t shift_;
};

}  // namespace pagedkv
