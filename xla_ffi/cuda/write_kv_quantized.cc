#include <cstddef>
#include <string_view>

#include "calls.h"
#include "cuda/handlers.h"
#include "device.h"
#include "kv_layout.h"
#include "quantize_rows.h"
#include "write_plan.h"

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

ffi::Error write_kv_quantized(const WriteCall& call, DeviceStream device) {
  const WritePlan& plan = call.plan();
  const CheckedWrite& write = plan.write;
  const CheckedQuantization& quantization = *plan.quantization;
  const auto num_batches = static_cast<int64_t>(plan.num_batches);
  const size_t num_streams = write.rows.size();
  if (num_batches == 0) return ffi::Error::Success();
  for (size_t i = 0; i < write.pools.size(); ++i) {
    auto error =
        carry_over(kOperation, device, call.pool_before(i), call.pool(i), call.pool_bytes(i));
    if (error.success()) {
      error = carry_over(kOperation, device, call.scales_before(i), call.scales(i),
                         call.scale_bytes(i));
    }
    if (error.failure()) return error;
  }
  const PoolGeometry& first = write.pools.front();
  QuantizeRows kernel{.slots = call.slots().data(),
                      .layers = call.layers().data(),
                      .num_dropped = call.num_dropped(),
                      .num_batches = num_batches,
                      .num_rows = static_cast<int64_t>(plan.num_tokens),
                      .num_layers = first.num_layers,
                      .num_slots = first.num_slots(),
                      .page_size = first.size(AxisRole::kTokens),
                      .padded_token_bytes = write.padded_token_bytes,
                      .padded_unit = 1,
                      .scales = {},
                      .num_streams = static_cast<int32_t>(num_streams),
                      .streams = {}};
  for (size_t i = 0; i < num_streams; ++i) {
    const size_t pool = plan.layout->pool_of(i);
    const ScaleGeometry& geometry = quantization.scales[pool];
    kernel.scales[i] = scales_of(geometry.granularity);
    kernel.streams[i] = {
        .pool = call.pool(pool),
        .scales = call.scales(pool),
        .rows = call.rows(i),
        .layer_bytes = write.pools[pool].layer_offset(0, 1),
        .layer_scales = geometry.layer_offset(0, 1),
        .geometry = write.rows[i],
        .first_scale = geometry.first[i],
        .page_scales = geometry.page_stride,
        .token_scales = geometry.token_stride,
        .head_scales = geometry.head_stride,
        .dim = quantization.rows[i].dim,
        .float_type = quantization.rows[i].float_type,
        .code_type = quantization.rows[i].code_type,
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

// Ids are on the device, so mode "raise" drops as "drop" does.
XLA_FFI_Error* PagedkvCudaWriteKvQuantized(XLA_FFI_CallFrame* frame) {
  using Stream = xla::ffi::PlatformStream<pagedkv::cuda::DeviceStream>;
  return pagedkv::run_write</*kQuantized=*/true, Stream>(
      frame, {xla::ffi::Traits::kCmdBufferCompatible}, pagedkv::cuda::write_kv_quantized);
}
