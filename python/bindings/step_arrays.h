#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "pagedkv/error.h"
#include "pagedkv/types.h"
#include "request_handles.h"

// Arrays of handles, as the step calls take them.
namespace pagedkv {

using HandleArray = nb::ndarray<const RequestHandle, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

inline std::span<const RequestHandle> values_of(const HandleArray& handles) {
  return {handles.data(), handles.shape(0)};
}

/// What a step was given in `group`. Throws `std::out_of_range` as if it were `operation` for a
/// group that is none.
template <typename PerGroup>
const PerGroup& of_group(const std::vector<PerGroup>& groups, GroupId group,
                         const char* operation) {
  if (group >= 0 && std::cmp_less(group, groups.size())) {
    return groups[static_cast<std::size_t>(group)];
  }
  throw_index_error(operation, "group must be in [0, ", groups.size(), "), got ", group);
}

}  // namespace pagedkv
