#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "numpy_arrays.h"
#include "pagedkv/types.h"

// Conversions between Python values and the core's spans, which several bindings need.
namespace pagedkv {

namespace nb = nanobind;

/// The items of a list or a tuple by position; a list may become shorter while they are read.
class Items {
 public:
  static bool are_in(nb::handle values) {
    return PyList_Check(values.ptr()) || PyTuple_Check(values.ptr());
  }

  /// Requires `are_in(values)`.
  explicit Items(nb::handle values) : values_(values), is_list_(PyList_Check(values.ptr())) {}

#if defined(Py_LIMITED_API)
  Py_ssize_t size() const {
    return is_list_ ? PyList_Size(values_.ptr()) : PyTuple_Size(values_.ptr());
  }
  nb::handle operator[](Py_ssize_t i) const {
    return is_list_ ? PyList_GetItem(values_.ptr(), i) : PyTuple_GetItem(values_.ptr(), i);
  }
#else
  Py_ssize_t size() const {
    return is_list_ ? PyList_GET_SIZE(values_.ptr()) : PyTuple_GET_SIZE(values_.ptr());
  }
  nb::handle operator[](Py_ssize_t i) const {
    return is_list_ ? PyList_GET_ITEM(values_.ptr(), i) : PyTuple_GET_ITEM(values_.ptr(), i);
  }
#endif

 private:
  nb::handle values_;
  bool is_list_;
};

/// The integers of a one-dimensional array of any integer dtype, or of a sequence of int.
///
/// Has room for `num_more` without moving. Throws TypeError for other things, ValueError for
/// integers that are not int32.
std::vector<std::int32_t> int32_values(nb::handle values, const char* operation, const char* name,
                                       std::size_t num_more = 0);

/// As `int32_values`, without a copy where the values are a contiguous int32 array of NumPy, as
/// they nearly always are; somebody must hold it.
class Int32Input {
 public:
  Int32Input(nb::handle values, const char* operation, const char* name);

  operator std::span<const std::int32_t>() const { return span_; }
  std::size_t size() const { return span_.size(); }
  std::int32_t operator[](std::size_t i) const { return span_[i]; }

 private:
  std::vector<std::int32_t> copy_;
  std::span<const std::int32_t> span_;
};

}  // namespace pagedkv
