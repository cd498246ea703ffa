#include "scale_layout.h"

#include <algorithm>
#include <vector>

namespace pagedkv {
namespace {

bool has_axis(Granularity granularity, AxisRole role) {
  switch (role) {
    case AxisRole::kPages:
      return granularity != Granularity::kStatic;
    case AxisRole::kTokens:
      return granularity == Granularity::kToken;
    default:
      return role == AxisRole::kHeads;
  }
}

// Axes of one layer's scales. Side by side, a head of the pool is one of keys and one of values.
std::vector<int64_t> scale_axes(const KvLayout& layout, Shape pool_axes, Granularity granularity) {
  std::vector<int64_t> axes;
  for (size_t axis = 0; axis < layout.rank; ++axis) {
    if (has_axis(granularity, layout.roles[axis])) axes.push_back(pool_axes[axis]);
  }
  if (layout.sharing == Sharing::kSideBySide) axes.push_back(2);
  return axes;
}

}  // namespace

ffi::ErrorOr<ScaleGeometry> scale_geometry(std::string_view operation, std::string_view name,
                                           const ffi::AnyBuffer& scales, const ffi::AnyBuffer& pool,
                                           const KvLayout& layout, size_t batch_rank,
                                           bool layered) {
  if (scales.element_type() != ffi::F32) {
    return ffi::Unexpected(
        invalid_argument(operation, name, " must be F32, got ", scales.element_type()));
  }
  const size_t num_leading_axes = batch_rank + (layered ? 1 : 0);
  const Shape layers = shape(pool).first(num_leading_axes).subspan(batch_rank);
  const Shape pool_axes = shape(pool).last(layout.rank);
  for (const auto granularity : {Granularity::kStatic, Granularity::kPage, Granularity::kToken}) {
    const std::vector<int64_t> axes = scale_axes(layout, pool_axes, granularity);
    if (shape(scales).size() != num_leading_axes + axes.size() ||
        !is_concatenation(shape(scales).subspan(batch_rank), layers, axes)) {
      continue;
    }
    std::array<int64_t, 4> strides{};  // by AxisRole
    const bool side_by_side = layout.sharing == Sharing::kSideBySide;
    int64_t stride = side_by_side ? 2 : 1;
    for (size_t axis = layout.rank; axis-- > 0;) {
      const AxisRole role = layout.roles[axis];
      if (!has_axis(granularity, role)) continue;
      auto& of_role = strides[static_cast<size_t>(role)];
      if (of_role == 0) of_role = stride;
      stride *= pool_axes[axis];
    }
    const auto of = [&](AxisRole role) { return strides[static_cast<size_t>(role)]; };
    ScaleGeometry geometry{.batch = shape(scales).first(batch_rank),
                           .granularity = granularity,
                           .num_layers = layered ? shape(pool)[batch_rank] : 1,
                           .layer_size = stride,
                           .page_stride = of(AxisRole::kPages),
                           .token_stride = of(AxisRole::kTokens),
                           .head_stride = of(AxisRole::kHeads),
                           .first = {0, side_by_side ? 1 : 0}};
    if (layout.sharing == Sharing::kInterleaved) {
      geometry.first[1] = geometry.head_stride;
      geometry.head_stride *= 2;
    }
    return geometry;
  }
  return ffi::Unexpected(
      invalid_argument(operation, name, " must have the shape of their pool ", Printed{shape(pool)},
                       " without its elements, or also without tokens, or pages too, in layout ",
                       layout.name, ", got ", Printed{shape(scales)}));
}

}  // namespace pagedkv
