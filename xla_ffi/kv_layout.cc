#include "kv_layout.h"

#include <algorithm>

namespace pagedkv {
namespace {

constexpr auto kPages = AxisRole::kPages;
constexpr auto kTokens = AxisRole::kTokens;
constexpr auto kHeads = AxisRole::kHeads;
constexpr auto kDim = AxisRole::kDim;

// The names and axes of `pagedkv.KVLayout`.
constexpr KvLayout kLayouts[] = {
    {"NHD", Sharing::kSeparate, false, 4, {kPages, kTokens, kHeads, kDim}},
    {"HND", Sharing::kSeparate, false, 4, {kPages, kHeads, kTokens, kDim}},
    {"HEADS_FIRST", Sharing::kSeparate, false, 4, {kHeads, kPages, kTokens, kDim}},
    {"FUSED", Sharing::kInterleaved, false, 4, {kPages, kTokens, kHeads, kDim}},
    {"FUSED_PACKED", Sharing::kInterleaved, true, 5, {kPages, kTokens, kHeads, kHeads, kDim}},
    {"SIDE_BY_SIDE", Sharing::kSideBySide, true, 5, {kPages, kTokens, kHeads, kHeads, kDim}},
    {"LATENT", Sharing::kLatent, false, 3, {kPages, kTokens, kDim}},
    {"LATENT_PACKED", Sharing::kLatent, true, 4, {kPages, kTokens, kTokens, kDim}},
    {"LATENT_TRANSPOSED", Sharing::kLatent, false, 3, {kPages, kDim, kTokens}},
};

// Heads and elements that a stream has room for.
struct Room {
  int64_t heads;
  int64_t dim;
};

Room room(const PoolGeometry& pool, const KvLayout& layout) {
  Room result{.heads = pool.size(kHeads), .dim = pool.size(kDim)};
  if (layout.sharing == Sharing::kInterleaved) result.heads /= 2;
  if (layout.sharing == Sharing::kSideBySide) result.dim /= 2;
  return result;
}

}  // namespace

const KvLayout* find_layout(std::string_view name) {
  const auto* found = std::ranges::find(kLayouts, name, &KvLayout::name);
  return found == std::end(kLayouts) ? nullptr : found;
}

ffi::ErrorOr<PoolGeometry> pool_geometry(std::string_view operation, std::string_view name,
                                         const ffi::AnyBuffer& pool, const KvLayout& layout,
                                         size_t batch_rank, bool layered) {
  const Shape axes = shape(pool);
  const size_t num_leading_axes = batch_rank + (layered ? 1 : 0);
  if (axes.size() != num_leading_axes + layout.rank) {
    return ffi::Unexpected(invalid_argument(operation, name, " must have ",
                                            num_leading_axes + layout.rank, " axes in layout ",
                                            layout.name, ", got ", Printed{axes}));
  }
  PoolGeometry geometry{.batch = axes.first(batch_rank),
                        .num_layers = layered ? axes[batch_rank] : 1,
                        .element_bits = bits(pool.element_type())};
  // Twice: the next key's head may be two strides away.
  if (!num_bits(axes, 2 * geometry.element_bits)) {
    return ffi::Unexpected(invalid_argument(operation, name, " of shape ", Printed{axes},
                                            " has more bits than int64 can count"));
  }
  geometry.layer_elements = *num_elements(axes.last(layout.rank));
  const int64_t layer_bits = geometry.layer_elements * geometry.element_bits;
  if (layer_bits % 8 != 0) {
    return ffi::Unexpected(invalid_argument(operation, "a layer of ", name, ' ', Printed{axes},
                                            " has ", layer_bits,
                                            " bits, not a whole number of bytes"));
  }
  geometry.sizes.fill(1);
  geometry.strides.fill(0);
  int64_t stride = 1;
  for (size_t axis = layout.rank; axis-- > 0;) {
    const auto role = static_cast<size_t>(layout.roles[axis]);
    // Of several axes of a role, the last one's stride is that of the role.
    if (geometry.strides[role] == 0) geometry.strides[role] = stride;
    geometry.sizes[role] *= axes[num_leading_axes + axis];
    stride *= axes[num_leading_axes + axis];
  }
  const auto num_slots = checked_mul(geometry.size(kPages), geometry.size(kTokens));
  if (!num_slots || *num_slots > INT32_MAX) {
    return ffi::Unexpected(invalid_argument(operation, name, " of shape ", Printed{axes},
                                            " has more slots a layer than int32 can number"));
  }
  return geometry;
}

ffi::ErrorOr<RowGeometry> row_geometry(std::string_view operation, std::string_view rows_name,
                                       const PoolGeometry& pool, const KvLayout& layout,
                                       size_t stream, int64_t num_heads, int64_t dim,
                                       bool by_head) {
  const Room has = room(pool, layout);
  const bool fits = layout.pads ? num_heads <= has.heads && dim <= has.dim
                                : num_heads == has.heads && dim == has.dim;
  const bool halves =
      layout.sharing != Sharing::kInterleaved || pool.size(kHeads) % 2 == 0 || layout.pads;
  if (!fits || !halves || (layout.sharing == Sharing::kSideBySide && pool.size(kDim) % 2 != 0)) {
    return ffi::Unexpected(invalid_argument(
        operation, rows_name, " has ", num_heads, " heads of ", dim, " elements, but a token has ",
        layout.pads ? "room for " : "", has.heads, " of ", has.dim, " in layout ", layout.name));
  }
  int64_t first = 0, head_stride = pool.stride(kHeads);
  if (layout.sharing == Sharing::kInterleaved) {
    first = static_cast<int64_t>(stream) * head_stride;
    head_stride *= 2;
  } else if (layout.sharing == Sharing::kSideBySide) {
    first = static_cast<int64_t>(stream) * has.dim;
  }
  int64_t num_runs = num_heads, run = dim;
  const bool is_scattered = pool.stride(kDim) != 1;
  if (!by_head && !is_scattered && head_stride == dim) {
    run *= num_runs;
    num_runs = 1;
  }
  // An array without elements may have no memory to point at.
  if (!by_head && run == 0) num_runs = 0;
  const int64_t width = pool.element_bits;
  const int64_t token_stride = pool.stride(kTokens) * width;
  const int64_t page_stride = pool.stride(kPages) * width;
  const auto whole = [](int64_t num_bits) { return num_bits % 8 == 0; };
  if (!whole(run * width) || !whole(first * width) || !whole(token_stride) || !whole(page_stride) ||
      (num_runs > 1 && !whole(head_stride * width)) || (is_scattered && !whole(width))) {
    return ffi::Unexpected(invalid_argument(
        operation, "the rows of ", rows_name, ", ", num_heads, " heads of ", dim, " elements of ",
        width, " bits, do not start at whole bytes in layout ", layout.name));
  }
  return RowGeometry{.first = first * width / 8,
                     .page_stride = page_stride / 8,
                     .token_stride = token_stride / 8,
                     .num_runs = num_runs,
                     .run_bytes = run * width / 8,
                     .run_stride = head_stride * width / 8,
                     .element_bytes = width / 8,
                     .element_stride = is_scattered ? pool.stride(kDim) * width / 8 : width / 8,
                     .page_size = pool.size(kTokens)};
}

int64_t padded_token_bytes(const PoolGeometry& pool, const KvLayout& layout, int64_t num_heads,
                           int64_t dim) {
  const int64_t used = static_cast<int64_t>(layout.num_streams()) * num_heads * dim;
  const int64_t held = pool.size(kHeads) * pool.size(kDim);
  return layout.pads && used < held ? held * pool.element_bits / 8 : 0;
}

}  // namespace pagedkv
