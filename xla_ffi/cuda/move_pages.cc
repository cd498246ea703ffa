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

constexpr std::string_view kOperation = "move_pages";

// Moves the pages of every pool, one kernel each. The first one counts, or one without a pool.
template <bool kToRows>
ffi::Error move_pages(DeviceStream device, const ffi::AnyBuffer& page_ids,
                      const ffi::AnyBuffer& rows, const ffi::RemainingArgs& pools,
                      const ffi::RemainingRets& new_pools, const ffi::AnyBuffer& num_dropped,
                      int64_t page_axis, std::string_view mode) {
  if (auto error = check_mode(kOperation, mode); error.failure()) return error;
  const auto checked =
      check_move(kOperation, page_ids, rows, pools, new_pools, num_dropped, page_axis);
  if (!checked) return checked.error();
  const auto num_batches = static_cast<int64_t>(checked->num_batches);
  if (num_batches == 0) return ffi::Error::Success();
  using Kernel = MovePages<kToRows>;
  Kernel kernel{.pages = {.pool = nullptr,
                          .num_layers = 1,
                          .num_outer = 0,
                          .num_pages = 0,
                          .run_bytes = 0,
                          .unit = 1},
                .rows = static_cast<std::byte*>(rows.untyped_data()),
                .ids = static_cast<const int32_t*>(page_ids.untyped_data()),
                .layers = nullptr,
                .num_dropped = static_cast<int32_t*>(num_dropped.untyped_data()),
                .num_batches = num_batches,
                .num_ids = static_cast<int64_t>(checked->num_ids),
                .row_bytes = checked->row_bytes,
                .row_offset = 0,
                .num_parts = 1,
                .pool_of = {},
                .ids_of = {},
                .layer_of = {}};
  for (size_t i = 0; i < checked->views.size(); ++i) {
    const PageView& view = checked->views[i];
    const ffi::AnyBuffer& after = checked->after[i];
    if (auto error =
            carry_over(kOperation, device, checked->before[i], after, checked->pool_bytes(i));
        error.failure()) {
      return error;
    }
    kernel.pages =
        make_pages(view, after, {address(kernel.rows), kernel.row_bytes, kernel.row_offset});
    kernel.num_parts = num_page_parts(view, Kernel::kPartBytes);
    if (auto error = device_error(kOperation, launch(device, kernel)); error.failure()) {
      return error;
    }
    kernel.row_offset += view.page_bytes();
    kernel.num_dropped = nullptr;
  }
  if (kernel.num_dropped == nullptr) return ffi::Error::Success();
  return device_error(kOperation, launch(device, kernel));
}

ffi::Error pages_to_rows(DeviceStream device, ffi::AnyBuffer page_ids, ffi::AnyBuffer rows_before,
                         ffi::RemainingArgs pools, ffi::Result<ffi::AnyBuffer> num_dropped,
                         ffi::Result<ffi::AnyBuffer> rows, ffi::RemainingRets new_pools,
                         int64_t page_axis, std::string_view mode) {
  if (auto error = check_like(kOperation, "the rows", *rows, "rows", rows_before);
      error.failure()) {
    return error;
  }
  return move_pages<true>(device, page_ids, *rows, pools, new_pools, *num_dropped, page_axis, mode);
}

ffi::Error rows_to_pages(DeviceStream device, ffi::AnyBuffer page_ids, ffi::AnyBuffer rows,
                         ffi::RemainingArgs pools, ffi::Result<ffi::AnyBuffer> num_dropped,
                         ffi::RemainingRets new_pools, int64_t page_axis, std::string_view mode) {
  return move_pages<false>(device, page_ids, rows, pools, new_pools, *num_dropped, page_axis, mode);
}

}  // namespace
}  // namespace pagedkv::cuda

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvCudaPagesToRows, pagedkv::cuda::pages_to_rows,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::PlatformStream<pagedkv::cuda::DeviceStream>>()
                                  .Arg<xla::ffi::AnyBuffer>()  // page_ids
                                  .Arg<xla::ffi::AnyBuffer>()  // rows
                                  .RemainingArgs()             // pools
                                  .Ret<xla::ffi::AnyBuffer>()  // num_dropped
                                  .Ret<xla::ffi::AnyBuffer>()  // rows, aliased
                                  .RemainingRets()             // pools, aliased and as they were
                                  .Attr<int64_t>("page_axis")
                                  .Attr<std::string_view>("mode"),  // drops, whichever it is
                              {xla::ffi::Traits::kCmdBufferCompatible});

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvCudaRowsToPages, pagedkv::cuda::rows_to_pages,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::PlatformStream<pagedkv::cuda::DeviceStream>>()
                                  .Arg<xla::ffi::AnyBuffer>()  // page_ids
                                  .Arg<xla::ffi::AnyBuffer>()  // rows
                                  .RemainingArgs()             // pools
                                  .Ret<xla::ffi::AnyBuffer>()  // num_dropped
                                  .RemainingRets()             // pools, aliased
                                  .Attr<int64_t>("page_axis")
                                  .Attr<std::string_view>("mode"),
                              {xla::ffi::Traits::kCmdBufferCompatible});
