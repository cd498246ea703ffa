#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "broadcast.h"
#include "checks.h"
#include "handlers.h"
#include "ids.h"
#include "operands.h"
#include "page_checks.h"
#include "page_copies.h"

namespace pagedkv {
namespace {

constexpr std::string_view kOperation = "gather_pages";

// Reads pages into `rows`, whoever owns these.
ffi::Error gather(ffi::ThreadPool& threads, const ffi::AnyBuffer& pages,
                  const ffi::AnyBuffer& page_ids, const ffi::AnyBuffer& layer,
                  const ffi::AnyBuffer& rows, const ffi::AnyBuffer& num_dropped, bool layered,
                  int64_t page_axis, std::string_view mode_name) {
  const auto mode = parse_mode(mode_name);
  if (!mode) return unknown_mode(kOperation, mode_name);
  const auto checked =
      check_gather(kOperation, pages, page_ids, layer, rows, num_dropped, layered, page_axis);
  if (!checked) return checked.error();
  const PageView& view = checked->view;
  const Shape batch = checked->batch;
  const std::span<const int32_t> ids = int32_span(page_ids);
  const std::span<const int32_t> layers = int32_span(layer);
  if (*mode == Mode::kRaise) {
    if (auto error = check_layers(kOperation, layers, view.num_layers); error.failure()) {
      return error;
    }
    if (auto error = check_ids(kOperation, "page", ids, view.num_pages); error.failure()) {
      return error;
    }
  }

  const size_t num_ids = checked->num_ids;
  for (size_t index = 0; index < checked->num_batches; ++index) {
    const int32_t wanted = layers[broadcast_index(index, batch, shape(layer))];
    // A layer that does not exist has no pages.
    const bool layer_exists = in_range(wanted, view.num_layers);
    const int64_t num_pages = layer_exists ? view.num_pages : 0;
    const size_t pool_index = broadcast_index(index, batch, view.batch);
    const size_t ids_index = broadcast_index(index, batch, checked->ids_batch);
    const auto wanted_ids = ids.subspan(ids_index * num_ids, num_ids);
    gather_rows(threads, view,
                static_cast<const std::byte*>(pages.untyped_data()) +
                    view.layer_offset(static_cast<int64_t>(pool_index), layer_exists ? wanted : 0),
                num_pages, wanted_ids,
                static_cast<std::byte*>(rows.untyped_data()) +
                    index * num_ids * static_cast<size_t>(view.page_bytes()));
    static_cast<int32_t*>(num_dropped.untyped_data())[index] = count_dropped(wanted_ids, num_pages);
  }
  return ffi::Error::Success();
}

ffi::Error gather_pages(ffi::ThreadPool threads, ffi::AnyBuffer pages, ffi::AnyBuffer page_ids,
                        ffi::AnyBuffer layer, ffi::Result<ffi::AnyBuffer> rows,
                        ffi::Result<ffi::AnyBuffer> num_dropped, bool layered, int64_t page_axis,
                        std::string_view mode) {
  return gather(threads, pages, page_ids, layer, *rows, *num_dropped, layered, page_axis, mode);
}

ffi::Error gather_into(ffi::ThreadPool threads, ffi::AnyBuffer pages, ffi::AnyBuffer rows_before,
                       ffi::AnyBuffer page_ids, ffi::AnyBuffer layer,
                       ffi::Result<ffi::AnyBuffer> rows, ffi::Result<ffi::AnyBuffer> num_dropped,
                       bool layered, int64_t page_axis, std::string_view mode) {
  // Every row is written, so nothing of what was there comes along.
  if (auto error = check_like(kOperation, "the result", *rows, "rows", rows_before);
      error.failure()) {
    return error;
  }
  return gather(threads, pages, page_ids, layer, *rows, *num_dropped, layered, page_axis, mode);
}

ffi::Error gather_through(ffi::ThreadPool threads, ffi::AnyBuffer pages, ffi::AnyBuffer page_ids,
                          ffi::AnyBuffer layer, ffi::Result<ffi::AnyBuffer> new_pages,
                          ffi::Result<ffi::AnyBuffer> rows, ffi::Result<ffi::AnyBuffer> num_dropped,
                          bool layered, int64_t page_axis, std::string_view mode) {
  if (auto error = check_like(kOperation, "the first result", *new_pages, "pages", pages);
      error.failure()) {
    return error;
  }
  auto error =
      gather(threads, pages, page_ids, layer, *rows, *num_dropped, layered, page_axis, mode);
  if (error.success()) {
    const int64_t num_bits = static_cast<int64_t>(num_elements(pages)) * bits(pages.element_type());
    carry_over(pages, *new_pages, num_bits / 8);
  }
  return error;
}

}  // namespace
}  // namespace pagedkv

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvGatherPages, pagedkv::gather_pages,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()        // pages
                                  .Arg<xla::ffi::AnyBuffer>()        // page_ids
                                  .Arg<xla::ffi::AnyBuffer>()        // layer
                                  .Ret<xla::ffi::AnyBuffer>()        // rows
                                  .Ret<xla::ffi::AnyBuffer>()        // num_dropped
                                  .Attr<bool>("layered")             // a layer axis comes first
                                  .Attr<int64_t>("page_axis")        // behind that of the layer
                                  .Attr<std::string_view>("mode"));  // drop or raise

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvGatherInto, pagedkv::gather_into,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()  // pages
                                  .Arg<xla::ffi::AnyBuffer>()  // rows
                                  .Arg<xla::ffi::AnyBuffer>()  // page_ids
                                  .Arg<xla::ffi::AnyBuffer>()  // layer
                                  .Ret<xla::ffi::AnyBuffer>()  // rows, aliased
                                  .Ret<xla::ffi::AnyBuffer>()  // num_dropped
                                  .Attr<bool>("layered")
                                  .Attr<int64_t>("page_axis")
                                  .Attr<std::string_view>("mode"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvGatherThrough, pagedkv::gather_through,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()  // pages
                                  .Arg<xla::ffi::AnyBuffer>()  // page_ids
                                  .Arg<xla::ffi::AnyBuffer>()  // layer
                                  .Ret<xla::ffi::AnyBuffer>()  // pages, aliased
                                  .Ret<xla::ffi::AnyBuffer>()  // rows
                                  .Ret<xla::ffi::AnyBuffer>()  // num_dropped
                                  .Attr<bool>("layered")
                                  .Attr<int64_t>("page_axis")
                                  .Attr<std::string_view>("mode"));
