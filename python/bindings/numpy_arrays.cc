#include "numpy_arrays.h"

#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#include <numpy/arrayobject.h>

#include <array>

namespace pagedkv {
namespace {

constexpr std::size_t kMaxDimensions = 2;

template <typename T>
constexpr int kTypeNumber = sizeof(T) == sizeof(npy_int32) ? NPY_INT32 : NPY_INT64;

}  // namespace

void import_numpy() {
  if (_import_array() < 0) nb::raise_python_error();
}

template <ArrayElement T>
FreshArray<T>::FreshArray(std::initializer_list<std::size_t> shape) {
  std::array<npy_intp, kMaxDimensions> dims;
  std::ranges::copy(shape, dims.begin());
  array_ =
      nb::steal(PyArray_SimpleNew(static_cast<int>(shape.size()), dims.data(), kTypeNumber<T>));
  if (!array_.is_valid()) nb::raise_python_error();
  auto* const array = reinterpret_cast<PyArrayObject*>(array_.ptr());
  values_ = {static_cast<T*>(PyArray_DATA(array)), static_cast<std::size_t>(PyArray_SIZE(array))};
}

template <ArrayElement T>
std::optional<std::span<const T>> numpy_values(nb::handle object) {
  if (!PyArray_Check(object.ptr())) return std::nullopt;
  auto* const array = reinterpret_cast<PyArrayObject*>(object.ptr());
  if (PyArray_NDIM(array) != 1 || PyArray_TYPE(array) != kTypeNumber<T> ||
      !PyArray_ISCARRAY_RO(array)) {
    return std::nullopt;
  }
  return std::span(static_cast<const T*>(PyArray_DATA(array)),
                   static_cast<std::size_t>(PyArray_DIM(array, 0)));
}

template class FreshArray<std::int32_t>;
template class FreshArray<std::int64_t>;
template std::optional<std::span<const std::int32_t>> numpy_values(nb::handle);
template std::optional<std::span<const std::int64_t>> numpy_values(nb::handle);

}  // namespace pagedkv
