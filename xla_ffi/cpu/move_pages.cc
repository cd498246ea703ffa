#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "checks.h"
#include "handlers.h"
#include "ids.h"
#include "operands.h"
#include "page_checks.h"
#include "page_copies.h"

namespace pagedkv {
namespace {

constexpr std::string_view kOperation = "move_pages";

// Checks a move, and brings along what is in pools that are not the results' memory.
ffi::ErrorOr<CheckedPools> read_move(const ffi::AnyBuffer& page_ids, const ffi::AnyBuffer& rows,
                                     const ffi::RemainingArgs& pools,
                                     const ffi::RemainingRets& new_pools,
                                     const ffi::AnyBuffer& num_dropped, int64_t page_axis,
                                     std::string_view mode_name) {
  const auto mode = parse_mode(mode_name);
  if (!mode) return ffi::Unexpected(unknown_mode(kOperation, mode_name));
  auto move = check_move(kOperation, page_ids, rows, pools, new_pools, num_dropped, page_axis);
  if (!move) return move;
  if (*mode == Mode::kRaise) {
    if (auto error = check_ids(kOperation, "page", int32_span(page_ids), move->num_pages);
        error.failure()) {
      return ffi::Unexpected(std::move(error));
    }
  }
  for (size_t i = 0; i < move->views.size(); ++i) {
    carry_over(move->before[i], move->after[i], move->pool_bytes(i));
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
    for (size_t pool = 0; pool < move->views.size(); ++pool) {
      const PageView& view = move->views[pool];
      if (view.run_bytes == 0) continue;
      const std::byte* const source = move->pool(pool, batch);
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
    for (size_t pool = 0; pool < move->views.size(); ++pool) {
      const PageView& view = move->views[pool];
      scatter_rows(threads, view, move->pool(pool, batch), view.num_pages, ids,
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
