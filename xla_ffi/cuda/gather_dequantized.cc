#include <cstddef>
#include <string_view>

#include "calls.h"
#include "checks.h"
#include "cuda/handlers.h"
#include "dequantize_pages.h"
#include "device.h"
#include "kv_layout.h"
#include "quantized_checks.h"

namespace pagedkv::cuda {
namespace {

constexpr std::string_view kOperation = "gather_pages";

// The axes of a page, as far as runs are told apart by them. A side of `SIDE_BY_SIDE` is one more
// axis: keys and then values.
void set_axes(const KvLayout& layout, Shape pool_axes, const CheckedDequantize& checked,
              DequantizePages& kernel) {
  const ScaleGeometry& scales = checked.scales;
  // Interleaved heads count keys and values together here, as the scales lie.
  const int64_t head_stride =
      layout.sharing == Sharing::kInterleaved ? scales.head_stride / 2 : scales.head_stride;
  const bool is_side_by_side = layout.sharing == Sharing::kSideBySide;
  int64_t codes = 1, tokens = scales.token_stride, heads = head_stride;
  DequantizePages::Axis reversed[DequantizePages::kMaxAxes];
  kernel.num_axes = 0;
  kernel.num_runs = 1;
  for (size_t axis = layout.rank; axis-- > 0;) {
    const AxisRole role = layout.roles[axis];
    int64_t size = pool_axes[axis], stride = codes, scale_stride = 0;
    codes *= size;
    if (role == AxisRole::kPages) continue;
    if (role == AxisRole::kTokens) scale_stride = tokens, tokens *= size;
    if (role == AxisRole::kHeads) scale_stride = heads, heads *= size;
    if (axis + 1 == layout.rank) {
      kernel.run_size = is_side_by_side ? size / 2 : size;
      kernel.run_scales = scale_stride;
      if (!is_side_by_side) continue;
      size = 2, stride = kernel.run_size, scale_stride = scales.first[1];
    }
    reversed[kernel.num_axes++] = {.size = size, .codes = stride, .scales = scale_stride};
    kernel.num_runs *= size;
  }
  for (int32_t i = 0; i < kernel.num_axes; ++i) {
    kernel.axes[i] = reversed[kernel.num_axes - 1 - i];
  }
}

ffi::Error gather_dequantized(DeviceStream device, ffi::AnyBuffer pages, ffi::AnyBuffer scales,
                              ffi::AnyBuffer page_ids, ffi::AnyBuffer layer,
                              ffi::Result<ffi::AnyBuffer> rows,
                              ffi::Result<ffi::AnyBuffer> num_dropped, std::string_view layout_name,
                              bool layered, std::string_view mode) {
  if (auto error = check_mode(kOperation, mode); error.failure()) return error;
  const KvLayout* layout = find_layout(layout_name);
  if (layout == nullptr) return invalid_argument(kOperation, "no layout ", layout_name);
  const auto checked = check_gather_dequantized(kOperation, pages, scales, page_ids, layer, *rows,
                                                *num_dropped, *layout, layered);
  if (!checked) return checked.error();
  if (checked->num_batches == 0) return ffi::Error::Success();
  const auto pool_of = batch_map(kOperation, checked->batch, checked->pool.batch);
  if (!pool_of) return pool_of.error();
  const auto scales_of = batch_map(kOperation, checked->batch, checked->scales.batch);
  if (!scales_of) return scales_of.error();
  const auto ids_of = batch_map(kOperation, checked->batch, checked->ids_batch);
  if (!ids_of) return ids_of.error();
  const auto layer_of = batch_map(kOperation, checked->batch, shape(layer));
  if (!layer_of) return layer_of.error();
  const PoolGeometry& pool = checked->pool;
  DequantizePages kernel{.pool = static_cast<const std::byte*>(pages.untyped_data()),
                         .scales = static_cast<const float*>(scales.untyped_data()),
                         .rows = static_cast<std::byte*>(rows->untyped_data()),
                         .ids = static_cast<const int32_t*>(page_ids.untyped_data()),
                         .layers = static_cast<const int32_t*>(layer.untyped_data()),
                         .num_dropped = static_cast<int32_t*>(num_dropped->untyped_data()),
                         .num_batches = static_cast<int64_t>(checked->num_batches),
                         .num_ids = static_cast<int64_t>(checked->num_ids),
                         .num_layers = pool.num_layers,
                         .num_pages = checked->view.num_pages,
                         .layer_bytes = pool.layer_offset(0, 1),
                         .layer_scales = checked->scales.layer_offset(0, 1),
                         .page_bytes = pool.stride(AxisRole::kPages) * pool.element_bits / 8,
                         .page_scales = checked->scales.page_stride,
                         .float_type = checked->float_type,
                         .code_type = checked->code_type,
                         .num_axes = 0,
                         .axes = {},
                         .num_runs = 0,
                         .run_size = 0,
                         .run_scales = 0,
                         .pool_of = *pool_of,
                         .scales_of = *scales_of,
                         .ids_of = *ids_of,
                         .layer_of = *layer_of};
  // Rows bound what a page has. Without any, its axes may be of any size.
  if (num_elements(*rows) != 0) {
    set_axes(*layout, shape(pages).last(layout->rank), *checked, kernel);
  }
  return device_error(kOperation, launch(device, kernel));
}

}  // namespace
}  // namespace pagedkv::cuda

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvCudaGatherDequantized, pagedkv::cuda::gather_dequantized,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::PlatformStream<pagedkv::cuda::DeviceStream>>()
                                  .Arg<xla::ffi::AnyBuffer>()  // pages
                                  .Arg<xla::ffi::AnyBuffer>()  // scales
                                  .Arg<xla::ffi::AnyBuffer>()  // page_ids
                                  .Arg<xla::ffi::AnyBuffer>()  // layer
                                  .Ret<xla::ffi::AnyBuffer>()  // rows
                                  .Ret<xla::ffi::AnyBuffer>()  // num_dropped
                                  .Attr<std::string_view>("layout")
                                  .Attr<bool>("layered")            // a layer axis comes first
                                  .Attr<std::string_view>("mode"),  // drops, whichever it is
                              {xla::ffi::Traits::kCmdBufferCompatible});
