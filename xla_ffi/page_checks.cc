#include "page_checks.h"

#include <algorithm>
#include <utility>

#include "broadcast.h"
#include "operands.h"
#include "pagedkv/math.h"

namespace pagedkv {
namespace {

ffi::Unexpected<ffi::Error> refuse(ffi::Error error) { return ffi::Unexpected(std::move(error)); }

// Reads pools that have the batch axes of the count and as many pages each.
ffi::Error read_pools(std::string_view operation, const ffi::RemainingArgs& pools,
                      const ffi::RemainingRets& new_pools, Shape batch, int64_t page_axis,
                      CheckedPools& checked) {
  if (auto error = read_operands(operation, pools, pools.size(), checked.before); error.failure()) {
    return error;
  }
  if (auto error = read_results(operation, new_pools, pools.size(), checked.after);
      error.failure()) {
    return error;
  }
  for (size_t i = 0; i < checked.before.size(); ++i) {
    const ffi::AnyBuffer& pool = checked.before[i];
    const auto view = page_view(operation, "a pool", pool, batch.size(), false, page_axis);
    if (!view) return view.error();
    if (!std::ranges::equal(view->batch, batch)) {
      return invalid_argument(operation, "a pool must have the batch axes ", Printed{batch},
                              ", got ", Printed{shape(pool)});
    }
    if (i > 0 && view->num_pages != checked.num_pages) {
      return invalid_argument(operation, "all pools must have ", checked.num_pages,
                              " pages as the first, got ", view->num_pages);
    }
    if (auto error = check_like(operation, "a result", checked.after[i], "its pool", pool);
        error.failure()) {
      return error;
    }
    checked.num_pages = view->num_pages;
    checked.row_bytes = saturating_add(checked.row_bytes, view->page_bytes());
    checked.views.push_back(*view);
  }
  return ffi::Error::Success();
}

}  // namespace

ffi::ErrorOr<CheckedGather> check_gather(std::string_view operation, const ffi::AnyBuffer& pages,
                                         const ffi::AnyBuffer& page_ids,
                                         const ffi::AnyBuffer& layer, const ffi::AnyBuffer& rows,
                                         const ffi::AnyBuffer& num_dropped, bool layered,
                                         int64_t page_axis) {
  if (auto error = check_gather_ids(operation, page_ids, layer, num_dropped); error.failure()) {
    return refuse(std::move(error));
  }
  const Shape batch = shape(num_dropped);
  const auto view = page_view(operation, "pages", pages, batch.size(), layered, page_axis);
  if (!view) return refuse(view.error());
  if (auto error = check_batch(operation, "pages", shape(pages), batch); error.failure()) {
    return refuse(std::move(error));
  }
  if (rows.element_type() != pages.element_type()) {
    return refuse(invalid_argument(operation, "rows must be ", pages.element_type(),
                                   " as pages, got ", rows.element_type()));
  }
  if (auto error = check_page_rows(operation, page_ids, rows, batch, view->page_axes);
      error.failure()) {
    return refuse(std::move(error));
  }
  const Shape id_axes = shape(page_ids).subspan(batch.size());
  return CheckedGather{.batch = batch,
                       .ids_batch = shape(page_ids).first(batch.size()),
                       .view = *view,
                       .num_batches = num_elements(num_dropped),
                       .num_ids = static_cast<size_t>(num_elements(id_axes).value_or(0))};
}

ffi::ErrorOr<CheckedScatter> check_scatter(
    std::string_view operation, const ffi::AnyBuffer& pages, const ffi::AnyBuffer& rows,
    const ffi::AnyBuffer& page_ids, const ffi::AnyBuffer& layer, const ffi::AnyBuffer& new_pages,
    const ffi::AnyBuffer& num_dropped, bool layered, int64_t page_axis) {
  if (auto error = check_int32(operation, "page_ids", page_ids); error.failure()) {
    return refuse(std::move(error));
  }
  if (auto error = check_int32(operation, "layer", layer); error.failure()) {
    return refuse(std::move(error));
  }
  if (auto error = check_like(operation, "num_dropped", num_dropped, "layer", layer);
      error.failure()) {
    return refuse(std::move(error));
  }
  const Shape batch = shape(layer);
  const auto view = page_view(operation, "pages", pages, batch.size(), layered, page_axis);
  if (!view) return refuse(view.error());
  const Shape id_axes = shape(page_ids);
  if (!std::ranges::equal(view->batch, batch) || id_axes.size() < batch.size() ||
      !std::ranges::equal(id_axes.first(batch.size()), batch)) {
    return refuse(invalid_argument(operation, "pages and page_ids must start with the axes ",
                                   Printed{batch}, " of layer, got ", Printed{shape(pages)},
                                   " and ", Printed{id_axes}));
  }
  if (rows.element_type() != pages.element_type()) {
    return refuse(invalid_argument(operation, "rows must be ", pages.element_type(),
                                   " as pages, got ", rows.element_type()));
  }
  if (!is_concatenation(shape(rows), id_axes, view->page_axes)) {
    return refuse(invalid_argument(operation, "rows must have the axes ", Printed{id_axes},
                                   " of page_ids and the page ", Printed{view->page_axes}, ", got ",
                                   Printed{shape(rows)}));
  }
  if (auto error = check_like(operation, "the first result", new_pages, "pages", pages);
      error.failure()) {
    return refuse(std::move(error));
  }
  const size_t num_batches = num_elements(layer);
  return CheckedScatter{
      .view = *view,
      .num_batches = num_batches,
      .num_ids = num_batches == 0 ? 0 : num_elements(page_ids) / num_batches,
  };
}

ffi::ErrorOr<CheckedPools> check_copy(std::string_view operation, const ffi::AnyBuffer& source_ids,
                                      const ffi::AnyBuffer& target_ids,
                                      const ffi::RemainingArgs& pools,
                                      const ffi::AnyBuffer& num_dropped,
                                      const ffi::RemainingRets& new_pools, int64_t page_axis) {
  if (auto error = check_int32(operation, "source_ids", source_ids); error.failure()) {
    return refuse(std::move(error));
  }
  if (auto error = check_like(operation, "target_ids", target_ids, "source_ids", source_ids);
      error.failure()) {
    return refuse(std::move(error));
  }
  if (auto error = check_int32(operation, "num_dropped", num_dropped); error.failure()) {
    return refuse(std::move(error));
  }
  const Shape batch = shape(num_dropped);
  const Shape id_axes = shape(source_ids);
  if (id_axes.empty() || !is_concatenation(id_axes, batch, id_axes.last(1))) {
    return refuse(invalid_argument(operation, "source_ids must have the axes ", Printed{batch},
                                   " of num_dropped and then one for pairs, got ",
                                   Printed{id_axes}));
  }
  CheckedPools checked;
  checked.num_batches = num_elements(num_dropped);
  checked.num_ids = static_cast<size_t>(id_axes.back());
  if (auto error = read_pools(operation, pools, new_pools, batch, page_axis, checked);
      error.failure()) {
    return refuse(std::move(error));
  }
  return checked;
}

ffi::ErrorOr<CheckedPools> check_move(std::string_view operation, const ffi::AnyBuffer& page_ids,
                                      const ffi::AnyBuffer& rows, const ffi::RemainingArgs& pools,
                                      const ffi::RemainingRets& new_pools,
                                      const ffi::AnyBuffer& num_dropped, int64_t page_axis) {
  if (auto error = check_int32(operation, "page_ids", page_ids); error.failure()) {
    return refuse(std::move(error));
  }
  if (auto error = check_int32(operation, "num_dropped", num_dropped); error.failure()) {
    return refuse(std::move(error));
  }
  const Shape batch = shape(num_dropped), id_axes = shape(page_ids), row_axes = shape(rows);
  if (id_axes.empty() || !is_concatenation(id_axes, batch, id_axes.last(1))) {
    return refuse(invalid_argument(operation, "page_ids must have the axes ", Printed{batch},
                                   " of num_dropped and then one for pages, got ",
                                   Printed{id_axes}));
  }
  if (rows.element_type() != ffi::U8 || row_axes.empty() ||
      !is_concatenation(row_axes, id_axes, row_axes.last(1))) {
    return refuse(invalid_argument(operation, "rows must be U8 with the axes ", Printed{id_axes},
                                   " of page_ids and then one for bytes, got ", rows.element_type(),
                                   ' ', Printed{row_axes}));
  }
  CheckedPools checked;
  checked.num_batches = num_elements(num_dropped);
  checked.num_ids = static_cast<size_t>(id_axes.back());
  if (auto error = read_pools(operation, pools, new_pools, batch, page_axis, checked);
      error.failure()) {
    return refuse(std::move(error));
  }
  if (row_axes.back() != checked.row_bytes) {
    return refuse(invalid_argument(operation, "rows must have ", checked.row_bytes,
                                   " bytes each, a page of every pool, got ", row_axes.back()));
  }
  return checked;
}

}  // namespace pagedkv
