#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "checks.h"
#include "handlers.h"
#include "ids.h"
#include "operands.h"
#include "page_checks.h"
#include "page_copies.h"

namespace pagedkv {
namespace {

constexpr std::string_view kOperation = "scatter_pages";

ffi::Error scatter_pages(ffi::ThreadPool threads, ffi::AnyBuffer pages, ffi::AnyBuffer rows,
                         ffi::AnyBuffer page_ids, ffi::AnyBuffer layer,
                         ffi::Result<ffi::AnyBuffer> new_pages,
                         ffi::Result<ffi::AnyBuffer> num_dropped, bool layered, int64_t page_axis,
                         std::string_view mode_name) {
  const auto mode = parse_mode(mode_name);
  if (!mode) return unknown_mode(kOperation, mode_name);
  const auto checked = check_scatter(kOperation, pages, rows, page_ids, layer, *new_pages,
                                     *num_dropped, layered, page_axis);
  if (!checked) return checked.error();
  const PageView& view = checked->view;
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
  carry_over(pages, *new_pages, view.layer_offset(static_cast<int64_t>(layers.size()), 0));
  const size_t num_ids = checked->num_ids;
  for (size_t index = 0; index < layers.size(); ++index) {
    // A layer that does not exist has no pages.
    const bool layer_exists = in_range(layers[index], view.num_layers);
    const int64_t num_pages = layer_exists ? view.num_pages : 0;
    const auto targets = ids.subspan(index * num_ids, num_ids);
    const std::byte* source = static_cast<const std::byte*>(rows.untyped_data()) +
                              index * num_ids * static_cast<size_t>(view.page_bytes());
    scatter_rows(
        threads, view,
        static_cast<std::byte*>(new_pages->untyped_data()) +
            view.layer_offset(static_cast<int64_t>(index), layer_exists ? layers[index] : 0),
        num_pages, targets, [&](size_t row, int64_t outer) {
          return source + static_cast<int64_t>(row) * view.page_bytes() + outer * view.run_bytes;
        });
    static_cast<int32_t*>(num_dropped->untyped_data())[index] = count_dropped(targets, num_pages);
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace pagedkv

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvScatterPages, pagedkv::scatter_pages,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()        // pages
                                  .Arg<xla::ffi::AnyBuffer>()        // rows
                                  .Arg<xla::ffi::AnyBuffer>()        // page_ids
                                  .Arg<xla::ffi::AnyBuffer>()        // layer
                                  .Ret<xla::ffi::AnyBuffer>()        // pages, aliased
                                  .Ret<xla::ffi::AnyBuffer>()        // num_dropped
                                  .Attr<bool>("layered")             // a layer axis comes first
                                  .Attr<int64_t>("page_axis")        // behind that of the layer
                                  .Attr<std::string_view>("mode"));  // drop or raise
