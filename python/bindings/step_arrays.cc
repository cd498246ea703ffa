#include "step_arrays.h"

namespace pagedkv {

bool HandleArray::assign(nb::handle values) {
  if (PyList_Check(values.ptr()) || PyTuple_Check(values.ptr())) return assign_items(values);
  if (!nb::ndarray_check(values) || !nb::try_cast(values, array_, false)) return false;
  span_ = std::span(array_.data(), array_.shape(0));
  return true;
}

// By position, each held: what an item's `__index__` runs may change a list.
bool HandleArray::assign_items(nb::handle list_or_tuple) {
  copy_.clear();
  copy_.reserve(nb::len(list_or_tuple));
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(list_or_tuple.ptr()); ++i) {
    auto item = nb::borrow(PySequence_Fast_GET_ITEM(list_or_tuple.ptr(), i));
    if (!PyLong_Check(item.ptr())) {
      item = nb::steal(PyIndex_Check(item.ptr()) ? PyNumber_Index(item.ptr()) : nullptr);
      PyErr_Clear();
      if (!item.is_valid()) return false;
    }
    int overflow = 0;
    copy_.push_back(PyLong_AsLongLongAndOverflow(item.ptr(), &overflow));
    if (overflow != 0) return false;
  }
  span_ = copy_;
  return true;
}

}  // namespace pagedkv
