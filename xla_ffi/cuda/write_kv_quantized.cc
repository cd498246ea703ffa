#include <cstddef>
#include <string_view>

#include "calls.h"
#include "checks.h"
#include "cuda/handlers.h"
#include "device.h"
#include "inline_vector.h"
#include "kv_layout.h"
#include "operands.h"
#include "quantize_rows.h"
#include "quantized_checks.h"

namespace pagedkv::cuda {
namespace {

constexpr std::string_view kOperation = "write_kv";

QuantizeRows::Scales scales_of(Granularity granularity) {
  switch (granularity) {
    case Granularity::kStatic:
      return QuantizeRows::Scales::kStatic;
    case Granularity::kPage:
      return QuantizeRows::Scales::kPage;
    default:
      return QuantizeRows::Scales::kToken;
  }
}

ffi::Error write_kv_quantized(DeviceStream device, ffi::AnyBuffer slot_mapping,
                              ffi::AnyBuffer layer, ffi::RemainingArgs arrays,
                              ffi::Result<ffi::AnyBuffer> num_dropped,
                              ffi::RemainingRets new_arrays, std::string_view layout_name,
                              bool layered, std::string_view mode) {
  const KvLayout* layout = find_layout(layout_name);
  if (layout == nullptr) return invalid_argument(kOperation, "no layout ", layout_name);
  const size_t num_pools = layout->num_pools(), num_streams = layout->num_streams();
  InlineVector<ffi::AnyBuffer, 6> operands;
  InlineVector<ffi::AnyBuffer, 4> results;
  if (auto error = read_operands(kOperation, arrays, 2 * num_pools + num_streams, operands);
      error.failure()) {
    return error;
  }
  if (auto error = read_results(kOperation, new_arrays, 2 * num_pools, results); error.failure()) {
    return error;
  }
  if (auto error = check_mode(kOperation, mode); error.failure()) return error;
  const std::span<const ffi::AnyBuffer> all = operands.span();
  const auto pools = all.first(num_pools), scales = all.subspan(num_pools, num_pools);
  const auto rows = all.last(num_streams);
  const auto checked =
      check_write_quantized(kOperation, slot_mapping, layer, *num_dropped, *layout, pools, scales,
                            rows, results.span(), layered, Mode::kDrop);
  if (!checked) return checked.error();
  const CheckedWrite& write = *checked->write;
  const auto num_batches = static_cast<int64_t>(num_elements(layer));
  if (num_batches == 0) return ffi::Error::Success();
  for (size_t i = 0; i < num_pools; ++i) {
    auto error = carry_over(kOperation, device, pools[i], results[i],
                            write.pools[i].layer_offset(num_batches, 0));
    if (error.success()) {
      error = carry_over(
          kOperation, device, scales[i], results[num_pools + i],
          checked->scales[i].layer_offset(num_batches, 0) * static_cast<int64_t>(sizeof(float)));
    }
    if (error.failure()) return error;
  }
  const PoolGeometry& first = write.pools.front();
  QuantizeRows kernel{.slots = static_cast<const int32_t*>(slot_mapping.untyped_data()),
                      .layers = static_cast<const int32_t*>(layer.untyped_data()),
                      .num_dropped = static_cast<int32_t*>(num_dropped->untyped_data()),
                      .num_batches = num_batches,
                      .num_rows = shape(slot_mapping).back(),
                      .num_layers = first.num_layers,
                      .num_slots = first.num_slots(),
                      .page_size = first.size(AxisRole::kTokens),
                      .padded_token_bytes = write.padded_token_bytes,
                      .padded_unit = 1,
                      .scales = {},
                      .num_streams = static_cast<int32_t>(num_streams),
                      .streams = {}};
  for (size_t i = 0; i < num_streams; ++i) {
    const size_t pool = layout->pool_of(i);
    const ScaleGeometry& geometry = checked->scales[pool];
    kernel.scales[i] = scales_of(geometry.granularity);
    kernel.streams[i] = {
        .pool = static_cast<std::byte*>(results[pool].untyped_data()),
        .scales = static_cast<float*>(results[num_pools + pool].untyped_data()),
        .rows = static_cast<const std::byte*>(rows[i].untyped_data()),
        .layer_bytes = write.pools[pool].layer_offset(0, 1),
        .layer_scales = geometry.layer_offset(0, 1),
        .geometry = write.rows[i],
        .first_scale = geometry.first[i],
        .page_scales = geometry.page_stride,
        .token_scales = geometry.token_stride,
        .head_scales = geometry.head_stride,
        .dim = checked->rows[i].dim,
        .float_type = checked->rows[i].float_type,
        .code_type = checked->rows[i].code_type,
    };
  }
  if (num_streams == 1) kernel.scales[1] = kernel.scales[0];
  if (write.padded_token_bytes != 0) {
    const QuantizeRows::Stream& keys = kernel.streams[0];
    kernel.padded_unit = unit_bytes({address(keys.pool), keys.layer_bytes, keys.geometry.first,
                                     keys.geometry.page_stride, keys.geometry.token_stride,
                                     write.padded_token_bytes});
  }
  return device_error(kOperation, launch(device, kernel));
}

}  // namespace
}  // namespace pagedkv::cuda

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvCudaWriteKvQuantized, pagedkv::cuda::write_kv_quantized,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::PlatformStream<pagedkv::cuda::DeviceStream>>()
                                  .Arg<xla::ffi::AnyBuffer>()  // slot_mapping
                                  .Arg<xla::ffi::AnyBuffer>()  // layer
                                  .RemainingArgs()             // pools, scales, new rows
                                  .Ret<xla::ffi::AnyBuffer>()  // num_dropped
                                  .RemainingRets()             // pools, scales, aliased
                                  .Attr<std::string_view>("layout")
                                  .Attr<bool>("layered")            // a layer axis comes first
                                  .Attr<std::string_view>("mode"),  // drops, whichever it is
                              {xla::ffi::Traits::kCmdBufferCompatible});
