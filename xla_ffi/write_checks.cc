#include "write_checks.h"

namespace pagedkv {
namespace {

constexpr std::string_view kPools[] = {"key_pages", "value_pages"};
constexpr std::string_view kRows[] = {"key", "value"};

ffi::Error check_ids_and_count(std::string_view operation, const ffi::AnyBuffer& slot_mapping,
                               const ffi::AnyBuffer& layer, const ffi::AnyBuffer& num_dropped) {
  if (auto error = check_int32(operation, "slot_mapping", slot_mapping); error.failure()) {
    return error;
  }
  if (auto error = check_int32(operation, "layer", layer); error.failure()) return error;
  const Shape slot_axes = shape(slot_mapping);
  if (slot_axes.empty() || !is_concatenation(slot_axes, shape(layer), slot_axes.last(1))) {
    return invalid_argument(operation, "slot_mapping must have the axes ", Printed{shape(layer)},
                            " of layer and then one for tokens, got ", Printed{slot_axes});
  }
  return check_like(operation, "num_dropped", num_dropped, "layer", layer);
}

ffi::ErrorOr<PoolGeometry> check_pool(std::string_view operation, std::string_view name,
                                      const ffi::AnyBuffer& pages, const ffi::AnyBuffer& after,
                                      const ffi::AnyBuffer& layer, const KvLayout& layout,
                                      bool layered) {
  const auto geometry = pool_geometry(operation, name, pages, layout, shape(layer).size(), layered);
  if (!geometry) return geometry;
  if (!std::ranges::equal(geometry->batch, shape(layer))) {
    return ffi::Unexpected(invalid_argument(operation, name, " must have the batch axes ",
                                            Printed{shape(layer)}, " of layer, got ",
                                            Printed{shape(pages)}));
  }
  if (auto error = check_like(operation, "a result", after, name, pages); error.failure()) {
    return ffi::Unexpected(std::move(error));
  }
  return geometry;
}

ffi::Error check_rows(std::string_view operation, std::string_view name, const ffi::AnyBuffer& rows,
                      const ffi::AnyBuffer& slot_mapping, const KvLayout& layout) {
  const Shape axes = shape(rows);
  const size_t row_rank = layout.has_heads() ? 2 : 1;
  if (axes.size() >= row_rank && is_concatenation(axes, shape(slot_mapping), axes.last(row_rank))) {
    if (num_bits(axes, bits(rows.element_type()))) return ffi::Error::Success();
    return invalid_argument(operation, name, " of shape ", Printed{axes},
                            " has more bits than int64 can count");
  }
  return invalid_argument(operation, name, " must have the axes ", Printed{shape(slot_mapping)},
                          " of slot_mapping and then ", row_rank, " for a row, got ",
                          Printed{axes});
}

}  // namespace

ffi::ErrorOr<CheckedWrite> check_write(
    std::string_view operation, const ffi::AnyBuffer& slot_mapping, const ffi::AnyBuffer& layer,
    const ffi::AnyBuffer& num_dropped, const KvLayout& layout,
    std::span<const ffi::AnyBuffer> pools, std::span<const ffi::AnyBuffer> new_pools,
    std::span<const ffi::AnyBuffer> rows, bool layered, bool by_head) {
  const auto refuse = [](ffi::Error error) { return ffi::Unexpected(std::move(error)); };
  if (auto error = check_ids_and_count(operation, slot_mapping, layer, num_dropped);
      error.failure()) {
    return refuse(std::move(error));
  }
  CheckedWrite write{};
  for (size_t i = 0; i < pools.size(); ++i) {
    const auto geometry =
        check_pool(operation, kPools[i], pools[i], new_pools[i], layer, layout, layered);
    if (!geometry) return refuse(geometry.error());
    write.pools.push_back(*geometry);
  }
  const PoolGeometry &first = write.pools.front(), &last = write.pools.back();
  for (const AxisRole role : {AxisRole::kPages, AxisRole::kTokens}) {
    if (last.size(role) != first.size(role) || last.num_layers != first.num_layers) {
      return refuse(invalid_argument(operation, "value_pages must have the pages of key_pages, ",
                                     Printed{shape(pools.front())}, ", got ",
                                     Printed{shape(pools.back())}));
    }
  }
  for (size_t stream = 0; stream < rows.size(); ++stream) {
    if (auto error = check_rows(operation, kRows[stream], rows[stream], slot_mapping, layout);
        error.failure()) {
      return refuse(std::move(error));
    }
    const Shape axes = shape(rows[stream]);
    const auto geometry =
        row_geometry(operation, kRows[stream], write.pools[layout.pool_of(stream)], layout, stream,
                     layout.has_heads() ? axes[axes.size() - 2] : 1, axes.back(), by_head);
    if (!geometry) return refuse(geometry.error());
    write.token_bytes += geometry->row_bytes();
    write.rows.push_back(*geometry);
  }
  const Shape key_axes = shape(rows.front());
  if (layout.sharing != Sharing::kSeparate && !std::ranges::equal(key_axes, shape(rows.back()))) {
    return refuse(invalid_argument(operation, "value must have the shape ", Printed{key_axes},
                                   " of key in layout ", layout.name, ", got ",
                                   Printed{shape(rows.back())}));
  }
  write.padded_token_bytes = padded_token_bytes(
      first, layout, layout.has_heads() ? key_axes[key_axes.size() - 2] : 1, key_axes.back());
  write.is_plain = rows.size() == 2 && write.padded_token_bytes == 0 &&
                   std::ranges::all_of(write.rows.span(), [](const RowGeometry& row) {
                     return row.num_runs == 1 && !row.is_scattered() && row.first == 0 &&
                            row.page_stride == row.page_size * row.token_stride;
                   });
  for (PoolGeometry& pool : write.pools)
    pool.batch = {};  // its array may be gone before the answer is used
  return write;
}

ffi::Error check_row_dtypes(std::string_view operation, const KvLayout& layout,
                            std::span<const ffi::AnyBuffer> pools,
                            std::span<const ffi::AnyBuffer> rows) {
  for (size_t stream = 0; stream < rows.size(); ++stream) {
    const ffi::DataType wanted = pools[layout.pool_of(stream)].element_type();
    if (rows[stream].element_type() == wanted) continue;
    return invalid_argument(operation, kRows[stream], " must be ", wanted, " as its pages, got ",
                            rows[stream].element_type());
  }
  return ffi::Error::Success();
}

}  // namespace pagedkv
