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

constexpr std::string_view kOperation = "scatter_pages";

ffi::Error scatter_pages(DeviceStream device, ffi::AnyBuffer pages, ffi::AnyBuffer rows,
                         ffi::AnyBuffer page_ids, ffi::AnyBuffer layer,
                         ffi::Result<ffi::AnyBuffer> new_pages,
                         ffi::Result<ffi::AnyBuffer> num_dropped, bool layered, int64_t page_axis,
                         std::string_view mode) {
  if (auto error = check_mode(kOperation, mode); error.failure()) return error;
  const auto checked = check_scatter(kOperation, pages, rows, page_ids, layer, *new_pages,
                                     *num_dropped, layered, page_axis);
  if (!checked) return checked.error();
  const auto num_batches = static_cast<int64_t>(checked->num_batches);
  if (num_batches == 0) return ffi::Error::Success();
  const PageView& view = checked->view;
  if (auto error =
          carry_over(kOperation, device, pages, *new_pages, view.layer_offset(num_batches, 0));
      error.failure()) {
    return error;
  }
  using Kernel = MovePages</*kToRows=*/false>;
  const Kernel kernel{.pages = make_pages(view, *new_pages, {address(rows.untyped_data())}),
                      .rows = static_cast<std::byte*>(rows.untyped_data()),
                      .ids = static_cast<const int32_t*>(page_ids.untyped_data()),
                      .layers = static_cast<const int32_t*>(layer.untyped_data()),
                      .num_dropped = static_cast<int32_t*>(num_dropped->untyped_data()),
                      .num_batches = num_batches,
                      .num_ids = static_cast<int64_t>(checked->num_ids),
                      .row_bytes = view.page_bytes(),
                      .row_offset = 0,
                      .num_parts = num_page_parts(view, Kernel::kPartBytes),
                      .pool_of = {},
                      .ids_of = {},
                      .layer_of = {}};
  return device_error(kOperation, launch(device, kernel));
}

}  // namespace
}  // namespace pagedkv::cuda

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvCudaScatterPages, pagedkv::cuda::scatter_pages,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::PlatformStream<pagedkv::cuda::DeviceStream>>()
                                  .Arg<xla::ffi::AnyBuffer>()       // pages
                                  .Arg<xla::ffi::AnyBuffer>()       // rows
                                  .Arg<xla::ffi::AnyBuffer>()       // page_ids
                                  .Arg<xla::ffi::AnyBuffer>()       // layer
                                  .Ret<xla::ffi::AnyBuffer>()       // pages, aliased
                                  .Ret<xla::ffi::AnyBuffer>()       // num_dropped
                                  .Attr<bool>("layered")            // a layer axis comes first
                                  .Attr<int64_t>("page_axis")       // behind that of the layer
                                  .Attr<std::string_view>("mode"),  // drops, whichever it is
                              {xla::ffi::Traits::kCmdBufferCompatible});
