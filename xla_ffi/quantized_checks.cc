#include "quantized_checks.h"

#include <algorithm>
#include <utility>

#include "broadcast.h"

namespace pagedkv {
namespace {

ffi::Unexpected<ffi::Error> refuse(ffi::Error error) { return ffi::Unexpected(std::move(error)); }

ffi::Error wrong_dtypes(std::string_view operation, const ffi::AnyBuffer& rows,
                        const ffi::AnyBuffer& pages) {
  return invalid_argument(operation,
                          "rows must be F32, F16 or BF16 and pages S8, S4, F8E4M3FN "
                          "or F8E5M2, got ",
                          rows.element_type(), " and ", pages.element_type());
}

}  // namespace

ffi::ErrorOr<CheckedQuantization> check_quantization(
    std::string_view operation, const ffi::AnyBuffer& layer, const KvLayout& layout,
    std::span<const ffi::AnyBuffer> pools, std::span<const ffi::AnyBuffer> scales,
    std::span<const ffi::AnyBuffer> new_scales, std::span<const ffi::AnyBuffer> rows,
    bool layered) {
  CheckedQuantization checked{};
  for (size_t i = 0; i < pools.size(); ++i) {
    const std::string_view name = i == 0 ? "key_scales" : "value_scales";
    const auto geometry =
        scale_geometry(operation, name, scales[i], pools[i], layout, shape(layer).size(), layered);
    if (!geometry) return refuse(geometry.error());
    if (auto error = check_like(operation, "a result", new_scales[i], name, scales[i]);
        error.failure()) {
      return refuse(std::move(error));
    }
    if (!std::ranges::equal(geometry->batch, shape(layer))) {
      return refuse(invalid_argument(operation, name, " must have the batch axes ",
                                     Printed{shape(layer)}, " of layer, got ",
                                     Printed{shape(scales[i])}));
    }
    checked.scales.push_back(*geometry);
    checked.scales.back().batch = {};  // its array may be gone before the answer is used
  }
  for (size_t stream = 0; stream < rows.size(); ++stream) {
    const ffi::AnyBuffer& pool = pools[layout.pool_of(stream)];
    const auto floats = float_type(rows[stream].element_type());
    const auto codes = code_type(pool.element_type());
    if (!floats || !codes) return refuse(wrong_dtypes(operation, rows[stream], pool));
    checked.rows[stream] = {
        .float_type = *floats, .code_type = *codes, .dim = shape(rows[stream]).back()};
  }
  return checked;
}

ffi::ErrorOr<CheckedDequantize> check_gather_dequantized(
    std::string_view operation, const ffi::AnyBuffer& pages, const ffi::AnyBuffer& scales,
    const ffi::AnyBuffer& page_ids, const ffi::AnyBuffer& layer, const ffi::AnyBuffer& rows,
    const ffi::AnyBuffer& num_dropped, const KvLayout& layout, bool layered) {
  if (auto error = check_gather_ids(operation, page_ids, layer, num_dropped); error.failure()) {
    return refuse(std::move(error));
  }
  const Shape batch = shape(num_dropped);
  const auto pool = pool_geometry(operation, "pages", pages, layout, batch.size(), layered);
  if (!pool) return refuse(pool.error());
  const auto scale =
      scale_geometry(operation, "scales", scales, pages, layout, batch.size(), layered);
  if (!scale) return refuse(scale.error());
  const auto page_axis = std::ranges::find(layout.roles, AxisRole::kPages) - layout.roles.begin();
  const auto view = page_view(operation, "pages", pages, batch.size(), layered, page_axis);
  if (!view) return refuse(view.error());
  if (auto error = check_batch(operation, "pages", shape(pages), batch); error.failure()) {
    return refuse(std::move(error));
  }
  if (auto error = check_batch(operation, "scales", shape(scales), batch); error.failure()) {
    return refuse(std::move(error));
  }
  const auto code = code_type(pages.element_type());
  const auto floats = float_type(rows.element_type());
  if (!code || !floats) return refuse(wrong_dtypes(operation, rows, pages));
  if (auto error = check_page_rows(operation, page_ids, rows, batch, view->page_axes);
      error.failure()) {
    return refuse(std::move(error));
  }
  const bool is_transposed = layout.roles[layout.rank - 1] != AxisRole::kDim;
  const int64_t halves = layout.sharing == Sharing::kSideBySide ? 2 : 1;
  const int64_t run_size = is_transposed ? 1 : pool->size(AxisRole::kDim) / halves;
  if (num_elements(rows) != 0 && run_size * pool->element_bits % 8 != 0) {
    return refuse(invalid_argument(operation, "rows of ", run_size, " elements of ",
                                   pool->element_bits, " bits are not whole bytes in layout ",
                                   layout.name));
  }
  const Shape id_axes = shape(page_ids).subspan(batch.size());
  return CheckedDequantize{.batch = batch,
                           .ids_batch = shape(page_ids).first(batch.size()),
                           .pool = *pool,
                           .scales = *scale,
                           .view = *view,
                           .code_type = *code,
                           .float_type = *floats,
                           .num_batches = num_elements(num_dropped),
                           .num_ids = static_cast<size_t>(num_elements(id_axes).value_or(0)),
                           .is_transposed = is_transposed,
                           .run_size = run_size};
}

}  // namespace pagedkv
