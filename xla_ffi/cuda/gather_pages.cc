#include <cstddef>
#include <string_view>

#include "calls.h"
#include "checks.h"
#include "cuda/handlers.h"
#include "device.h"
#include "make_pages.h"
#include "page_checks.h"
#include "page_runs.h"

namespace pagedkv::cuda {
namespace {

constexpr std::string_view kOperation = "gather_pages";

// Reads pages into `rows`, whoever owns these.
ffi::Error gather(DeviceStream device, const ffi::AnyBuffer& pages, const ffi::AnyBuffer& page_ids,
                  const ffi::AnyBuffer& layer, const ffi::AnyBuffer& rows,
                  const ffi::AnyBuffer& num_dropped, bool layered, int64_t page_axis,
                  std::string_view mode) {
  if (auto error = check_mode(kOperation, mode); error.failure()) return error;
  const auto checked =
      check_gather(kOperation, pages, page_ids, layer, rows, num_dropped, layered, page_axis);
  if (!checked) return checked.error();
  if (checked->num_batches == 0) return ffi::Error::Success();
  const auto pool_of = batch_map(kOperation, checked->batch, checked->view.batch);
  if (!pool_of) return pool_of.error();
  const auto ids_of = batch_map(kOperation, checked->batch, checked->ids_batch);
  if (!ids_of) return ids_of.error();
  const auto layer_of = batch_map(kOperation, checked->batch, shape(layer));
  if (!layer_of) return layer_of.error();
  using Kernel = MovePages</*kToRows=*/true>;
  const PageView& view = checked->view;
  const Kernel kernel{.pages = make_pages(view, pages, {address(rows.untyped_data())}),
                      .rows = static_cast<std::byte*>(rows.untyped_data()),
                      .ids = static_cast<const int32_t*>(page_ids.untyped_data()),
                      .layers = static_cast<const int32_t*>(layer.untyped_data()),
                      .num_dropped = static_cast<int32_t*>(num_dropped.untyped_data()),
                      .num_batches = static_cast<int64_t>(checked->num_batches),
                      .num_ids = static_cast<int64_t>(checked->num_ids),
                      .row_bytes = view.page_bytes(),
                      .row_offset = 0,
                      .num_parts = num_page_parts(view, Kernel::kPartBytes),
                      .pool_of = *pool_of,
                      .ids_of = *ids_of,
                      .layer_of = *layer_of};
  return device_error(kOperation, launch(device, kernel));
}

ffi::Error gather_pages(DeviceStream device, ffi::AnyBuffer pages, ffi::AnyBuffer page_ids,
                        ffi::AnyBuffer layer, ffi::Result<ffi::AnyBuffer> rows,
                        ffi::Result<ffi::AnyBuffer> num_dropped, bool layered, int64_t page_axis,
                        std::string_view mode) {
  return gather(device, pages, page_ids, layer, *rows, *num_dropped, layered, page_axis, mode);
}

ffi::Error gather_into(DeviceStream device, ffi::AnyBuffer pages, ffi::AnyBuffer rows_before,
                       ffi::AnyBuffer page_ids, ffi::AnyBuffer layer,
                       ffi::Result<ffi::AnyBuffer> rows, ffi::Result<ffi::AnyBuffer> num_dropped,
                       bool layered, int64_t page_axis, std::string_view mode) {
  // Every row is written, so nothing of what was there comes along.
  if (auto error = check_like(kOperation, "the result", *rows, "rows", rows_before);
      error.failure()) {
    return error;
  }
  return gather(device, pages, page_ids, layer, *rows, *num_dropped, layered, page_axis, mode);
}

ffi::Error gather_through(DeviceStream device, ffi::AnyBuffer pages, ffi::AnyBuffer page_ids,
                          ffi::AnyBuffer layer, ffi::Result<ffi::AnyBuffer> new_pages,
                          ffi::Result<ffi::AnyBuffer> rows, ffi::Result<ffi::AnyBuffer> num_dropped,
                          bool layered, int64_t page_axis, std::string_view mode) {
  if (auto error = check_like(kOperation, "the first result", *new_pages, "pages", pages);
      error.failure()) {
    return error;
  }
  auto error =
      gather(device, pages, page_ids, layer, *rows, *num_dropped, layered, page_axis, mode);
  if (error.failure()) return error;
  const int64_t num_bits = static_cast<int64_t>(num_elements(pages)) * bits(pages.element_type());
  return carry_over(kOperation, device, pages, *new_pages, num_bits / 8);
}

}  // namespace
}  // namespace pagedkv::cuda

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvCudaGatherPages, pagedkv::cuda::gather_pages,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::PlatformStream<pagedkv::cuda::DeviceStream>>()
                                  .Arg<xla::ffi::AnyBuffer>()       // pages
                                  .Arg<xla::ffi::AnyBuffer>()       // page_ids
                                  .Arg<xla::ffi::AnyBuffer>()       // layer
                                  .Ret<xla::ffi::AnyBuffer>()       // rows
                                  .Ret<xla::ffi::AnyBuffer>()       // num_dropped
                                  .Attr<bool>("layered")            // a layer axis comes first
                                  .Attr<int64_t>("page_axis")       // behind that of the layer
                                  .Attr<std::string_view>("mode"),  // drops, whichever it is
                              {xla::ffi::Traits::kCmdBufferCompatible});

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvCudaGatherInto, pagedkv::cuda::gather_into,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::PlatformStream<pagedkv::cuda::DeviceStream>>()
                                  .Arg<xla::ffi::AnyBuffer>()  // pages
                                  .Arg<xla::ffi::AnyBuffer>()  // rows
                                  .Arg<xla::ffi::AnyBuffer>()  // page_ids
                                  .Arg<xla::ffi::AnyBuffer>()  // layer
                                  .Ret<xla::ffi::AnyBuffer>()  // rows, aliased
                                  .Ret<xla::ffi::AnyBuffer>()  // num_dropped
                                  .Attr<bool>("layered")
                                  .Attr<int64_t>("page_axis")
                                  .Attr<std::string_view>("mode"),
                              {xla::ffi::Traits::kCmdBufferCompatible});

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvCudaGatherThrough, pagedkv::cuda::gather_through,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::PlatformStream<pagedkv::cuda::DeviceStream>>()
                                  .Arg<xla::ffi::AnyBuffer>()  // pages
                                  .Arg<xla::ffi::AnyBuffer>()  // page_ids
                                  .Arg<xla::ffi::AnyBuffer>()  // layer
                                  .Ret<xla::ffi::AnyBuffer>()  // pages, aliased
                                  .Ret<xla::ffi::AnyBuffer>()  // rows
                                  .Ret<xla::ffi::AnyBuffer>()  // num_dropped
                                  .Attr<bool>("layered")
                                  .Attr<int64_t>("page_axis")
                                  .Attr<std::string_view>("mode"),
                              {xla::ffi::Traits::kCmdBufferCompatible});
