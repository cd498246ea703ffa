#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "checks.h"

/// A pool as the ops on whole pages see it: `[*batch, layers, outer, pages, inner]`, in bytes. What
/// is inside a page is none of their business, nor what the axes before the pages are: layers,
/// heads, or both. So they serve every layout and dtype, and arrays of scales as well.
namespace pagedkv {

struct PageView {
  Shape batch;
  std::vector<int64_t> page_axes;  // of one page: all axes behind the layer but that of the pages
  int64_t num_layers = 0;
  int64_t num_outer = 0;
  int64_t num_pages = 0;
  int64_t run_bytes = 0;  // of one page in one of the outer elements

  int64_t page_bytes() const { return num_outer * run_bytes; }
  int64_t outer_stride() const { return num_pages * run_bytes; }
  int64_t layer_bytes() const { return num_outer * outer_stride(); }
  /// First byte of a layer. Requires both arguments in range.
  int64_t layer_offset(int64_t batch_index, int64_t layer) const {
    return (batch_index * num_layers + layer) * layer_bytes();
  }
};

/// Views `pool`, whose pages are counted by axis `page_axis` behind those of the batch and of the
/// layer. Fails if there is no such axis, a run is not a whole number of bytes, or a size does not
/// fit in `int64_t`.
inline ffi::ErrorOr<PageView> page_view(std::string_view operation, std::string_view name,
                                        const ffi::AnyBuffer& pool, size_t batch_rank, bool layered,
                                        int64_t page_axis) {
  const Shape axes = shape(pool);
  const size_t num_leading_axes = batch_rank + (layered ? 1 : 0);
  if (page_axis < 0 || axes.size() < num_leading_axes ||
      static_cast<uint64_t>(page_axis) >= axes.size() - num_leading_axes) {
    return ffi::Unexpected(invalid_argument(operation, name, " must have more axes than the ",
                                            num_leading_axes, " before and the ", page_axis,
                                            " between them and its pages, got ", Printed{axes}));
  }
  const Shape layer_axes = axes.subspan(num_leading_axes);
  const auto page = static_cast<size_t>(page_axis);
  const Shape outer = layer_axes.first(page), inner = layer_axes.subspan(page + 1);
  PageView view{.batch = axes.first(batch_rank), .page_axes = {}};
  view.page_axes.assign(outer.begin(), outer.end());
  view.page_axes.insert(view.page_axes.end(), inner.begin(), inner.end());
  view.num_layers = layered ? axes[batch_rank] : 1;
  view.num_pages = layer_axes[page];

  const int64_t width = bits(pool.element_type());
  if (!num_bits(axes, width)) {
    return ffi::Unexpected(invalid_argument(operation, name, " of shape ", Printed{axes},
                                            " has more bits than int64 can count"));
  }
  const int64_t run_bits = *num_bits(inner, width);
  if (run_bits % 8 != 0) {
    return ffi::Unexpected(invalid_argument(operation, "a page of ", name, ' ', Printed{axes},
                                            " has parts of ", run_bits, " bits of ",
                                            pool.element_type(), ", not whole bytes"));
  }
  view.num_outer = *num_elements(outer);
  view.run_bytes = run_bits / 8;
  return view;
}

}  // namespace pagedkv
