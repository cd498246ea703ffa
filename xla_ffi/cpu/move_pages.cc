#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "checks.h"
#include "handlers.h"
#include "ids.h"
#include "operands.h"
#include "page_copies.h"
#include "page_view.h"
#include "pagedkv/math.h"

namespace pagedkv {
namespace {

constexpr std::string_view kOperation = "move_pages";

// All pools of a model and the rows that hold a page of each, back to back.
struct Move {
  std::vector<ffi::AnyBuffer> before;
  std::vector<ffi::AnyBuffer> pools;  // the memory to use
  std::vector<PageView> views;
  size_t num_batches = 0;
  size_t num_ids = 0;
  int64_t row_bytes = 0;
  int64_t num_pages = 0;

  std::byte* layer(size_t pool, size_t batch) const {
    return static_cast<std::byte*>(pools[pool].untyped_data()) +
           views[pool].layer_offset(static_cast<int64_t>(batch), 0);
  }
};

ffi::ErrorOr<Move> read_move(const ffi::AnyBuffer& page_ids, const ffi::AnyBuffer& rows,
                             const ffi::RemainingArgs& operands, const ffi::RemainingRets& results,
                             const ffi::AnyBuffer& num_dropped, int64_t page_axis,
                             std::string_view mode_name) {
  const auto refuse = [](ffi::Error error) { return ffi::Unexpected(std::move(error)); };
  const auto mode = parse_mode(mode_name);
  if (!mode) return refuse(unknown_mode(kOperation, mode_name));
  if (auto error = check_int32(kOperation, "page_ids", page_ids); error.failure()) {
    return refuse(std::move(error));
  }
  if (auto error = check_int32(kOperation, "num_dropped", num_dropped); error.failure()) {
    return refuse(std::move(error));
  }
  const Shape batch = shape(num_dropped), id_axes = shape(page_ids), row_axes = shape(rows);
  if (id_axes.empty() || !is_concatenation(id_axes, batch, id_axes.last(1))) {
    return refuse(invalid_argument(kOperation, "page_ids must have the axes ", Printed{batch},
                                   " of num_dropped and then one for pages, got ",
                                   Printed{id_axes}));
  }
  if (rows.element_type() != ffi::U8 || row_axes.empty() ||
      !is_concatenation(row_axes, id_axes, row_axes.last(1))) {
    return refuse(invalid_argument(kOperation, "rows must be U8 with the axes ", Printed{id_axes},
                                   " of page_ids and then one for bytes, got ", rows.element_type(),
                                   ' ', Printed{row_axes}));
  }
  Move move{.before = {},
            .pools = {},
            .views = {},
            .num_batches = num_elements(num_dropped),
            .num_ids = static_cast<size_t>(id_axes.back())};
  if (auto error = read_operands(kOperation, operands, operands.size(), move.before);
      error.failure()) {
    return refuse(std::move(error));
  }
  if (auto error = read_results(kOperation, results, operands.size(), move.pools);
      error.failure()) {
    return refuse(std::move(error));
  }
  for (size_t i = 0; i < move.pools.size(); ++i) {
    const auto view =
        page_view(kOperation, "a pool", move.before[i], batch.size(), false, page_axis);
    if (!view) return refuse(view.error());
    if (!std::ranges::equal(view->batch, batch)) {
      return refuse(invalid_argument(kOperation, "a pool must have the batch axes ", Printed{batch},
                                     ", got ", Printed{shape(move.before[i])}));
    }
    if (i > 0 && view->num_pages != move.num_pages) {
      return refuse(invalid_argument(kOperation, "all pools must have ", move.num_pages,
                                     " pages as the first, got ", view->num_pages));
    }
    if (auto error = check_like(kOperation, "a result", move.pools[i], "its pool", move.before[i]);
        error.failure()) {
      return refuse(std::move(error));
    }
    move.row_bytes = saturating_add(move.row_bytes, view->page_bytes());
    move.num_pages = view->num_pages;
    move.views.push_back(*view);
  }
  if (row_axes.back() != move.row_bytes) {
    return refuse(invalid_argument(kOperation, "rows must have ", move.row_bytes,
                                   " bytes each, a page of every pool, got ", row_axes.back()));
  }
  if (*mode == Mode::kRaise) {
    if (auto error = check_ids(kOperation, "page", int32_span(page_ids), move.num_pages);
        error.failure()) {
      return refuse(std::move(error));
    }
  }
  for (size_t i = 0; i < move.pools.size(); ++i) {
    carry_over(move.before[i], move.pools[i],
               move.views[i].layer_offset(static_cast<int64_t>(move.num_batches), 0));
  }
  return move;
}

ffi::Error pages_to_rows(ffi::ThreadPool threads, ffi::AnyBuffer page_ids,
                         ffi::AnyBuffer rows_before, ffi::RemainingArgs pools,
                         ffi::Result<ffi::AnyBuffer> num_dropped, ffi::Result<ffi::AnyBuffer> rows,
                         ffi::RemainingRets new_pools, int64_t page_axis, std::string_view mode) {
  if (auto error = check_like(kOperation, "the rows", *rows, "rows", rows_before);
      error.failure()) {
    return error;
  }
  const auto move = read_move(page_ids, *rows, pools, new_pools, *num_dropped, page_axis, mode);
  if (!move) return move.error();
  for (size_t batch = 0; batch < move->num_batches; ++batch) {
    const auto ids = int32_span(page_ids).subspan(batch * move->num_ids, move->num_ids);
    auto* target = static_cast<std::byte*>(rows->untyped_data()) +
                   batch * move->num_ids * static_cast<size_t>(move->row_bytes);
    for (size_t pool = 0; pool < move->pools.size(); ++pool) {
      const PageView& view = move->views[pool];
      if (view.run_bytes == 0) continue;
      const std::byte* const source = move->layer(pool, batch);
      copy_runs(threads, static_cast<int64_t>(ids.size()) * view.num_outer, view.run_bytes,
                [&](int64_t run) {
                  const int64_t row = run / view.num_outer, outer = run % view.num_outer;
                  const int32_t id = ids[static_cast<size_t>(row)];
                  return RunCopy{.target = target + row * move->row_bytes + outer * view.run_bytes,
                                 .source = in_range(id, view.num_pages)
                                               ? source + outer * view.outer_stride() +
                                                     int64_t{id} * view.run_bytes
                                               : nullptr};
                });
      target += view.page_bytes();
    }
    static_cast<int32_t*>(num_dropped->untyped_data())[batch] = count_dropped(ids, move->num_pages);
  }
  return ffi::Error::Success();
}

ffi::Error rows_to_pages(ffi::ThreadPool threads, ffi::AnyBuffer page_ids, ffi::AnyBuffer rows,
                         ffi::RemainingArgs pools, ffi::Result<ffi::AnyBuffer> num_dropped,
                         ffi::RemainingRets new_pools, int64_t page_axis, std::string_view mode) {
  const auto move = read_move(page_ids, rows, pools, new_pools, *num_dropped, page_axis, mode);
  if (!move) return move.error();
  for (size_t batch = 0; batch < move->num_batches; ++batch) {
    const auto ids = int32_span(page_ids).subspan(batch * move->num_ids, move->num_ids);
    const auto* source = static_cast<const std::byte*>(rows.untyped_data()) +
                         batch * move->num_ids * static_cast<size_t>(move->row_bytes);
    for (size_t pool = 0; pool < move->pools.size(); ++pool) {
      const PageView& view = move->views[pool];
      scatter_rows(threads, view, move->layer(pool, batch), view.num_pages, ids,
                   [&](size_t row, int64_t outer) {
                     return source + static_cast<int64_t>(row) * move->row_bytes +
                            outer * view.run_bytes;
                   });
      source += view.page_bytes();
    }
    static_cast<int32_t*>(num_dropped->untyped_data())[batch] = count_dropped(ids, move->num_pages);
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace pagedkv

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvPagesToRows, pagedkv::pages_to_rows,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()  // page_ids
                                  .Arg<xla::ffi::AnyBuffer>()  // rows
                                  .RemainingArgs()             // pools
                                  .Ret<xla::ffi::AnyBuffer>()  // num_dropped
                                  .Ret<xla::ffi::AnyBuffer>()  // rows, aliased
                                  .RemainingRets()             // pools, aliased and as they were
                                  .Attr<int64_t>("page_axis")
                                  .Attr<std::string_view>("mode"));  // drop or raise

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvRowsToPages, pagedkv::rows_to_pages,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()  // page_ids
                                  .Arg<xla::ffi::AnyBuffer>()  // rows
                                  .RemainingArgs()             // pools
                                  .Ret<xla::ffi::AnyBuffer>()  // num_dropped
                                  .RemainingRets()             // pools, aliased
                                  .Attr<int64_t>("page_axis")
                                  .Attr<std::string_view>("mode"));
