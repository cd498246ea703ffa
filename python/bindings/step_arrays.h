#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <span>

#include "request_handles.h"

// Arrays of handles, as the step calls take them.
namespace pagedkv {

using HandleArray = nb::ndarray<const RequestHandle, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

inline std::span<const RequestHandle> values_of(const HandleArray& handles) {
  return {handles.data(), handles.shape(0)};
}

}  // namespace pagedkv
