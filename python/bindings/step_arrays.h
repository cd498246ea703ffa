#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "arrays.h"
#include "pagedkv/error.h"
#include "pagedkv/types.h"
#include "request_handles.h"

// Arrays of handles, as the step calls take them.
namespace pagedkv {

/// Handles of requests, as a call is given them: a contiguous int64 array, which is not copied, or
/// a list or tuple of int, which is what a scheduler has that keeps its requests in a list.
class HandleArray {
 public:
  using Array = nb::ndarray<const RequestHandle, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

  /// False for anything else.
  bool assign(nb::handle values);

  std::size_t size() const { return span_.size(); }
  std::span<const RequestHandle> values() const { return span_; }

 private:
  bool assign_items(const Items& items);

  Array array_;
  std::vector<RequestHandle> copy_;
  std::span<const RequestHandle> span_;
};

inline std::span<const RequestHandle> values_of(const HandleArray& handles) {
  return handles.values();
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

template <>
struct nanobind::detail::type_caster<pagedkv::HandleArray> {
  NB_TYPE_CASTER(pagedkv::HandleArray, union_name(make_caster<pagedkv::HandleArray::Array>::Name,
                                                  const_name("collections.abc.Sequence[int]")))

  bool from_python(handle source, std::uint8_t, cleanup_list*) noexcept {
    return value.assign(source);
  }
};
