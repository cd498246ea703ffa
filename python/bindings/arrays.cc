#include "arrays.h"

#include <nanobind/stl/string.h>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "pagedkv/error.h"

namespace pagedkv {
namespace {

using AnyArray = nb::ndarray<nb::ro, nb::ndim<1>, nb::device::cpu>;

template <typename Integer>
void append_checked(const Integer* data, std::size_t size, std::ptrdiff_t stride,
                    const char* operation, const char* name, std::vector<std::int32_t>& out) {
  for (std::size_t i = 0; i < size; ++i) {
    const Integer value = data[static_cast<std::ptrdiff_t>(i) * stride];
    if (!std::in_range<std::int32_t>(value)) {
      throw_value_error(operation, name, " must fit in int32, got ", value, " at position ", i);
    }
    out.push_back(static_cast<std::int32_t>(value));
  }
}

// False if the dtype is no integer.
bool append_array(const AnyArray& array, const char* operation, const char* name,
                  std::vector<std::int32_t>& out) {
  const auto is = [&]<typename T>(std::type_identity<T>) {
    return array.dtype() == nb::dtype<T>();
  };
  const auto append = [&]<typename T>(std::type_identity<T> type) {
    if (!is(type)) return false;
    append_checked(static_cast<const T*>(array.data()), array.shape(0), array.stride(0), operation,
                   name, out);
    return true;
  };
  return append(std::type_identity<std::int32_t>()) || append(std::type_identity<std::int64_t>()) ||
         append(std::type_identity<std::uint32_t>()) ||
         append(std::type_identity<std::uint64_t>()) ||
         append(std::type_identity<std::int16_t>()) ||
         append(std::type_identity<std::uint16_t>()) || append(std::type_identity<std::int8_t>()) ||
         append(std::type_identity<std::uint8_t>());
}

// What nearly every item is: a plain int that fits. Runs no Python code.
bool is_plain_int32(nb::handle item, std::int32_t& value) {
  if (!PyLong_CheckExact(item.ptr())) return false;
  int overflow = 0;
  const long wide = PyLong_AsLongAndOverflow(item.ptr(), &overflow);
  value = static_cast<std::int32_t>(wide);
  return overflow == 0 && std::in_range<std::int32_t>(wide);
}

// Anything that is an integer to Python. Throws for the rest.
std::int32_t to_int32(nb::handle item, std::size_t position, const char* operation,
                      const char* name) {
  if (!PyIndex_Check(item.ptr())) {
    throw nb::type_error(error_message(operation, name, " must be integers, got ",
                                       nb::inst_name(item).c_str(), " at position ", position)
                             .c_str());
  }
  const auto integer = nb::steal(PyNumber_Index(item.ptr()));
  if (!integer.is_valid()) nb::raise_python_error();
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(integer.ptr(), &overflow);
  if (value == -1 && overflow == 0 && PyErr_Occurred() != nullptr) nb::raise_python_error();
  if (overflow != 0 || !std::in_range<std::int32_t>(value)) {
    throw_value_error(operation, name, " must fit in int32, got ", nb::str(integer).c_str(),
                      " at position ", position);
  }
  return static_cast<std::int32_t>(value);
}

// By position: what an item's `__index__` runs may change a list, and then it ends where it ends.
void append_items(const Items& items, const char* operation, const char* name,
                  std::vector<std::int32_t>& out) {
  std::int32_t value = 0;
  for (Py_ssize_t i = 0; i < items.size(); ++i) {
    if (!is_plain_int32(items[i], value)) {
      value = to_int32(nb::borrow(items[i]), static_cast<std::size_t>(i), operation, name);
    }
    out.push_back(value);
  }
}

}  // namespace

std::vector<std::int32_t> int32_values(nb::handle values, const char* operation, const char* name,
                                       std::size_t num_more) {
  std::vector<std::int32_t> out;
  const auto take_items = [&](const Items& items) {
    out.reserve(static_cast<std::size_t>(items.size()) + num_more);
    append_items(items, operation, name, out);
    return std::move(out);
  };
  if (Items::are_in(values)) return take_items(Items(values));
  if (const auto same = numpy_values<std::int32_t>(values)) {
    out.reserve(same->size() + num_more);
    out.assign(same->begin(), same->end());
    return out;
  }
  if (const auto wide = numpy_values<std::int64_t>(values)) {  // NumPy's default
    out.reserve(wide->size() + num_more);
    append_checked(wide->data(), wide->size(), 1, operation, name, out);
    return out;
  }
  if (!nb::isinstance<nb::str>(values) && !nb::isinstance<nb::bytes>(values)) {
    AnyArray array;
    if (nb::ndarray_check(values)) {
      if (nb::try_cast(values, array)) {
        out.reserve(array.shape(0) + num_more);
        if (append_array(array, operation, name, out)) return out;
      }
    } else if (PySequence_Check(values.ptr()) != 0) {
      const nb::list list(nb::borrow(values));
      return take_items(Items(list));
    }
  }
  throw nb::type_error(
      error_message(operation, name,
                    " must be a one-dimensional array or a sequence of integers, got ",
                    nb::inst_name(values).c_str())
          .c_str());
}

Int32Input::Int32Input(nb::handle values, const char* operation, const char* name) {
  if (const auto direct = numpy_values<std::int32_t>(values)) {
    span_ = *direct;
  } else {
    copy_ = int32_values(values, operation, name);
    span_ = copy_;
  }
}

}  // namespace pagedkv
