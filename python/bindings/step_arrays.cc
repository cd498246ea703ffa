#include "step_arrays.h"

namespace pagedkv {

bool HandleArray::assign(nb::handle values) {
  if (PyList_Check(values.ptr()) || PyTuple_Check(values.ptr())) return assign_items(values);
  if (!nb::ndarray_check(values) || !nb::try_cast(values, array_, false)) return false;
  span_ = std::span(array_.data(), array_.shape(0));
  return true;
}

// Nothing of Python's runs in here, so the items stay where they are.
bool HandleArray::assign_items(nb::handle list_or_tuple) {
  PyObject* const* const items = PySequence_Fast_ITEMS(list_or_tuple.ptr());
  copy_.resize(nb::len(list_or_tuple));
  for (std::size_t i = 0; i < copy_.size(); ++i) {
    int overflow = 0;
    if (!PyLong_Check(items[i])) return false;
    copy_[i] = PyLong_AsLongLongAndOverflow(items[i], &overflow);
    if (overflow != 0) return false;
  }
  span_ = copy_;
  return true;
}

}  // namespace pagedkv
