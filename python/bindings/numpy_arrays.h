#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

// NumPy arrays through NumPy's own C API: a step makes and reads several, and each costs a fraction
// of what it does by way of the buffer protocol.
namespace pagedkv {

namespace nb = nanobind;

/// Element types that the calls use.
template <typename T>
concept ArrayElement = std::same_as<T, std::int32_t> || std::same_as<T, std::int64_t>;

/// Makes the functions below usable. Throws ImportError without NumPy.
void import_numpy();

/// A fresh NumPy array. Never a view of memory that changes later: a program that was given an
/// array may still read it after the next step has begun.
template <ArrayElement T>
class FreshArray {
 public:
  /// Uninitialised, of `shape`; fill `values()`.
  explicit FreshArray(std::initializer_list<std::size_t> shape);

  /// A copy of `values`, of one dimension.
  explicit FreshArray(std::span<const T> values) : FreshArray({values.size()}) {
    std::ranges::copy(values, values_.begin());
  }

  std::span<T> values() const { return values_; }

  nb::handle release() { return array_.release(); }

 private:
  nb::object array_;
  std::span<T> values_;
};

using Int32Array = FreshArray<std::int32_t>;
using Int64Array = FreshArray<std::int64_t>;

inline Int32Array copy_of(std::span<const std::int32_t> values) { return Int32Array(values); }
inline Int64Array copy_of(std::span<const std::int64_t> values) { return Int64Array(values); }

/// The elements of a contiguous one-dimensional NumPy array of exactly this type; nothing for
/// anything else. Valid while somebody holds the array.
template <ArrayElement T>
std::optional<std::span<const T>> numpy_values(nb::handle array);

}  // namespace pagedkv

template <typename T>
struct nanobind::detail::type_caster<pagedkv::FreshArray<T>> {
  using Value = pagedkv::FreshArray<T>;
  static constexpr auto Name = make_caster<nanobind::ndarray<nanobind::numpy, T>>::Name;

  static handle from_cpp(Value&& array, rv_policy, cleanup_list*) noexcept {
    return array.release();
  }
};
