#include "step_arrays.h"

namespace pagedkv {

bool HandleArray::assign(nb::handle values) {
  if (Items::are_in(values)) return assign_items(Items(values));
  if (const auto direct = numpy_values<RequestHandle>(values)) {
    span_ = *direct;
    return true;
  }
  if (!nb::ndarray_check(values) || !nb::try_cast(values, array_, false)) return false;
  span_ = std::span(array_.data(), array_.shape(0));
  return true;
}

// Each item but a plain int is held: what its `__index__` runs may change a list.
bool HandleArray::assign_items(const Items& items) {
  copy_.clear();
  copy_.reserve(static_cast<std::size_t>(items.size()));
  for (Py_ssize_t i = 0; i < items.size(); ++i) {
    nb::handle item = items[i];
    nb::object integer;
    if (!PyLong_CheckExact(item.ptr())) {
      integer = nb::borrow(item);
      if (!PyLong_Check(item.ptr())) {
        integer = nb::steal(PyIndex_Check(item.ptr()) ? PyNumber_Index(item.ptr()) : nullptr);
        PyErr_Clear();
        if (!integer.is_valid()) return false;
      }
      item = integer;
    }
    int overflow = 0;
    copy_.push_back(PyLong_AsLongLongAndOverflow(item.ptr(), &overflow));
    if (overflow != 0) return false;
  }
  span_ = copy_;
  return true;
}

}  // namespace pagedkv
