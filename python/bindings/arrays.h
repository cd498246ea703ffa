#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "pagedkv/types.h"

// Conversions between Python values and the core's spans, which several bindings need.
namespace pagedkv {

namespace nb = nanobind;

/// A fresh int32 NumPy array. Never a view of memory that changes later: a program that was given
/// an array may still read it after the next step has begun.
using Int32Array = nb::ndarray<nb::numpy, std::int32_t>;

/// An uninitialised array of `shape`; fill `span_of(array)`.
Int32Array new_int32_array(std::initializer_list<std::size_t> shape);

std::span<std::int32_t> span_of(const Int32Array& array);

/// A copy of `values` as an array of one dimension.
Int32Array copy_of(std::span<const std::int32_t> values);

/// The integers of a one-dimensional array of any integer dtype, or of a sequence of int.
///
/// Has room for `num_more` without moving. Throws TypeError for other things, ValueError for
/// integers that are not int32.
std::vector<std::int32_t> int32_values(nb::handle values, const char* operation, const char* name,
                                       std::size_t num_more = 0);

/// As `int32_values`, without a copy where the values are a contiguous int32 array, as they nearly
/// always are.
class Int32Input {
 public:
  Int32Input(nb::handle values, const char* operation, const char* name);

  operator std::span<const std::int32_t>() const { return span_; }
  std::size_t size() const { return span_.size(); }
  std::int32_t operator[](std::size_t i) const { return span_[i]; }

 private:
  nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu> array_;
  std::vector<std::int32_t> copy_;
  std::span<const std::int32_t> span_;
};

}  // namespace pagedkv
