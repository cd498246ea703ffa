#include <cstddef>
#include <string_view>

#include "calls.h"
#include "checks.h"
#include "cuda/handlers.h"
#include "device.h"
#include "make_pages.h"
#include "page_checks.h"
#include "page_pairs.h"

namespace pagedkv::cuda {
namespace {

constexpr std::string_view kOperation = "copy_pages";

ffi::Error copy_pages(DeviceStream device, ffi::AnyBuffer source_ids, ffi::AnyBuffer target_ids,
                      ffi::RemainingArgs pools, ffi::Result<ffi::AnyBuffer> num_dropped,
                      ffi::RemainingRets new_pools, int64_t page_axis, std::string_view mode) {
  if (auto error = check_mode(kOperation, mode); error.failure()) return error;
  const auto checked =
      check_copy(kOperation, source_ids, target_ids, pools, *num_dropped, new_pools, page_axis);
  if (!checked) return checked.error();
  const auto num_batches = static_cast<int64_t>(checked->num_batches);
  if (num_batches == 0) return ffi::Error::Success();
  const PagePairs pairs{.sources = static_cast<const int32_t*>(source_ids.untyped_data()),
                        .targets = static_cast<const int32_t*>(target_ids.untyped_data()),
                        .num_pairs = static_cast<int64_t>(checked->num_ids),
                        .num_pages = checked->num_pages};
  if (pairs.num_pairs > kScratchBytes) {
    return invalid_argument(kOperation, "copies at most ", kScratchBytes,
                            " pairs in a call on CUDA, got ", pairs.num_pairs);
  }
  for (size_t i = 0; i < checked->views.size(); ++i) {
    const ffi::AnyBuffer &before = checked->before[i], &after = checked->after[i];
    if (auto error = carry_over(kOperation, device, before, after, checked->pool_bytes(i));
        error.failure()) {
      return error;
    }
    CopyPairs kernel{.pages = make_pages(checked->views[i], after, {}),
                     .pairs = pairs,
                     .num_batches = num_batches};
    kernel.pages.unit = column_unit(kernel.pages.unit, pairs.num_pairs);
    if (auto error = device_error(kOperation, launch_columns(device, kernel)); error.failure()) {
      return error;
    }
  }
  const CountPairs count{.pairs = pairs,
                         .num_dropped = static_cast<int32_t*>(num_dropped->untyped_data()),
                         .num_batches = num_batches};
  return device_error(kOperation, launch(device, count));
}

}  // namespace
}  // namespace pagedkv::cuda

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvCudaCopyPages, pagedkv::cuda::copy_pages,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::PlatformStream<pagedkv::cuda::DeviceStream>>()
                                  .Arg<xla::ffi::AnyBuffer>()  // source_ids
                                  .Arg<xla::ffi::AnyBuffer>()  // target_ids
                                  .RemainingArgs()             // pools
                                  .Ret<xla::ffi::AnyBuffer>()  // num_dropped
                                  .RemainingRets()             // pools, aliased
                                  .Attr<int64_t>("page_axis")
                                  .Attr<std::string_view>("mode"),  // drops, whichever it is
                              {xla::ffi::Traits::kCmdBufferCompatible});
