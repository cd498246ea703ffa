#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "checks.h"

/// Batches of the ops that read: an operand that vmap did not map is not copied for each element.
namespace pagedkv {

/// An operand that vmap did not map has 1 where the batch has its size.
inline bool broadcasts_to(Shape axes, Shape batch) {
  return axes.size() == batch.size() &&
         std::ranges::equal(axes, batch, [](int64_t a, int64_t b) { return a == 1 || a == b; });
}

/// Which of its batch elements an operand contributes to element `index` of the whole batch.
inline size_t broadcast_index(size_t index, Shape batch, Shape axes) {
  size_t result = 0;
  size_t stride = 1;
  for (size_t axis = batch.size(); axis-- > 0;) {
    const auto size = static_cast<size_t>(batch[axis]);
    if (axes[axis] != 1) result += index % size * stride;
    stride *= static_cast<size_t>(axes[axis]);
    index /= size;
  }
  return result;
}

/// Fails unless `axes` start with some that broadcast to the batch.
inline ffi::Error check_batch(std::string_view operation, std::string_view name, Shape axes,
                              Shape batch) {
  if (axes.size() >= batch.size() && broadcasts_to(axes.first(batch.size()), batch)) {
    return ffi::Error::Success();
  }
  return invalid_argument(operation, name, " must have batch axes that broadcast to the ",
                          Printed{batch}, " of num_dropped, got ", Printed{axes});
}

/// Fails unless ids, layer and count are int32 and belong to the batch, which is the shape of the
/// count.
inline ffi::Error check_gather_ids(std::string_view operation, const ffi::AnyBuffer& page_ids,
                                   const ffi::AnyBuffer& layer, const ffi::AnyBuffer& num_dropped) {
  if (auto error = check_int32(operation, "page_ids", page_ids); error.failure()) return error;
  if (auto error = check_int32(operation, "layer", layer); error.failure()) return error;
  if (auto error = check_int32(operation, "num_dropped", num_dropped); error.failure()) {
    return error;
  }
  const Shape batch = shape(num_dropped);
  if (auto error = check_batch(operation, "page_ids", shape(page_ids), batch); error.failure()) {
    return error;
  }
  if (broadcasts_to(shape(layer), batch)) return ffi::Error::Success();
  return invalid_argument(operation, "layer must broadcast to the shape ", Printed{batch},
                          " of num_dropped, got ", Printed{shape(layer)});
}

/// Fails unless `rows` has the axes of the batch, then those of `page_ids` behind it, then those of
/// a page.
inline ffi::Error check_page_rows(std::string_view operation, const ffi::AnyBuffer& page_ids,
                                  const ffi::AnyBuffer& rows, Shape batch, Shape page_axes) {
  const Shape id_axes = shape(page_ids).subspan(batch.size());
  const Shape row_axes = shape(rows);
  if (row_axes.size() >= batch.size() && std::ranges::equal(row_axes.first(batch.size()), batch) &&
      is_concatenation(row_axes.subspan(batch.size()), id_axes, page_axes)) {
    return ffi::Error::Success();
  }
  return invalid_argument(operation, "rows must have the axes ", Printed{batch},
                          " of num_dropped, ", Printed{id_axes}, " of page_ids and the page ",
                          Printed{page_axes}, ", got ", Printed{row_axes});
}

}  // namespace pagedkv
