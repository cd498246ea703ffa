#include "arrays.h"

#include <nanobind/stl/string.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <utility>

#include "pagedkv/error.h"

namespace pagedkv {
namespace {

using AnyArray = nb::ndarray<nb::ro, nb::ndim<1>, nb::device::cpu>;

template <typename Integer>
void append_checked(const AnyArray& array, const char* operation, const char* name,
                    std::vector<std::int32_t>& out) {
  const auto* data = static_cast<const Integer*>(array.data());
  for (std::size_t i = 0; i < array.shape(0); ++i) {
    const Integer value = data[static_cast<std::ptrdiff_t>(i) * array.stride(0)];
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
    return is(type) && (append_checked<T>(array, operation, name, out), true);
  };
  return append(std::type_identity<std::int32_t>()) || append(std::type_identity<std::int64_t>()) ||
         append(std::type_identity<std::uint32_t>()) ||
         append(std::type_identity<std::uint64_t>()) ||
         append(std::type_identity<std::int16_t>()) ||
         append(std::type_identity<std::uint16_t>()) || append(std::type_identity<std::int8_t>()) ||
         append(std::type_identity<std::uint8_t>());
}

void append_integer(nb::handle item, std::size_t position, const char* operation, const char* name,
                    std::vector<std::int32_t>& out) {
  if (PyLong_CheckExact(item.ptr())) {  // nearly always, so spare it the rest
    int overflow = 0;
    const long value = PyLong_AsLongAndOverflow(item.ptr(), &overflow);
    if (overflow == 0 && std::in_range<std::int32_t>(value)) {
      out.push_back(static_cast<std::int32_t>(value));
      return;
    }
  }
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
  out.push_back(static_cast<std::int32_t>(value));
}

}  // namespace

Int32Array new_int32_array(std::initializer_list<std::size_t> shape) {
  const std::size_t size =
      std::accumulate(shape.begin(), shape.end(), std::size_t{1}, std::multiplies<>());
  auto data = std::make_unique_for_overwrite<std::int32_t[]>(size);
  auto* pointer = data.get();
  nb::capsule owner(data.release(),
                    [](void* p) noexcept { delete[] static_cast<std::int32_t*>(p); });
  return Int32Array(pointer, shape, owner);
}

std::span<std::int32_t> span_of(const Int32Array& array) { return {array.data(), array.size()}; }

Int32Array copy_of(std::span<const std::int32_t> values) {
  Int32Array array = new_int32_array({values.size()});
  std::ranges::copy(values, array.data());
  return array;
}

std::vector<std::int32_t> int32_values(nb::handle values, const char* operation, const char* name,
                                       std::size_t num_more) {
  std::vector<std::int32_t> out;
  const bool is_text = nb::isinstance<nb::str>(values) || nb::isinstance<nb::bytes>(values);
  if (!is_text && nb::ndarray_check(values)) {
    AnyArray array;
    if (nb::try_cast(values, array)) {
      out.reserve(array.shape(0) + num_more);
      if (append_array(array, operation, name, out)) return out;
    }
  } else if (!is_text && PySequence_Check(values.ptr()) != 0) {
    const auto items = nb::isinstance<nb::list>(values) ? nb::borrow<nb::list>(values)
                                                        : nb::list(nb::borrow(values));
    out.reserve(nb::len(items) + num_more);
    // By position, each held: what an item's `__index__` runs may change the list.
    for (std::size_t i = 0; i < nb::len(items); ++i) {
      append_integer(nb::object(items[i]), i, operation, name, out);
    }
    return out;
  }
  throw nb::type_error(
      error_message(operation, name,
                    " must be a one-dimensional array or a sequence of integers, got ",
                    nb::inst_name(values).c_str())
          .c_str());
}

Int32Input::Int32Input(nb::handle values, const char* operation, const char* name) {
  if (nb::ndarray_check(values) && nb::try_cast(values, array_, false)) {
    span_ = std::span(array_.data(), array_.shape(0));
  } else {
    copy_ = int32_values(values, operation, name);
    span_ = copy_;
  }
}

}  // namespace pagedkv
