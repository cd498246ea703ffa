#include <algorithm>
#include <cstddef>
#include <string_view>

#include "calls.h"
#include "cuda/handlers.h"
#include "device.h"
#include "kv_layout.h"
#include "pagedkv/math.h"
#include "write_plan.h"
#include "write_rows.h"

namespace pagedkv::cuda {
namespace {

constexpr std::string_view kOperation = "write_kv";

// What a kernel is told of one stream.
WriteRows::Stream make_stream(std::byte* pool, const std::byte* rows, int64_t layer_bytes,
                              const RowGeometry& geometry) {
  WriteRows::Stream stream{.pool = pool,
                           .rows = rows,
                           .layer_bytes = layer_bytes,
                           .geometry = geometry,
                           .unit = geometry.element_bytes,
                           .unit_stride = geometry.element_stride,
                           .run_units = 0,
                           .row_units = 0};
  if (!geometry.is_scattered()) {
    stream.unit = unit_bytes({address(stream.pool), address(stream.rows), layer_bytes,
                              geometry.first, geometry.page_stride, geometry.token_stride,
                              geometry.run_bytes, geometry.num_runs > 1 ? geometry.run_stride : 0});
    stream.unit_stride = stream.unit;
  }
  stream.run_units = geometry.run_bytes / stream.unit;
  stream.row_units = geometry.num_runs * stream.run_units;
  return stream;
}

ffi::Error write_kv(const WriteCall& call, DeviceStream device) {
  const WritePlan& plan = call.plan();
  const CheckedWrite& write = plan.write;
  const auto num_batches = static_cast<int64_t>(plan.num_batches);
  const size_t num_streams = write.rows.size();
  if (num_batches == 0) return ffi::Error::Success();
  for (size_t i = 0; i < write.pools.size(); ++i) {
    if (auto error =
            carry_over(kOperation, device, call.pool_before(i), call.pool(i), call.pool_bytes(i));
        error.failure()) {
      return error;
    }
  }
  const PoolGeometry& first = write.pools.front();
  WriteRows kernel{.slots = call.slots().data(),
                   .layers = call.layers().data(),
                   .num_dropped = call.num_dropped(),
                   .num_batches = num_batches,
                   .num_rows = static_cast<int64_t>(plan.num_tokens),
                   .num_layers = first.num_layers,
                   .num_slots = first.num_slots(),
                   .num_parts = 1,
                   .padded_token_bytes = write.padded_token_bytes,
                   .padded_unit = 1,
                   .num_streams = static_cast<int32_t>(num_streams),
                   .streams = {}};
  int64_t most_bytes = 0;
  for (size_t i = 0; i < num_streams; ++i) {
    const size_t pool = plan.layout->pool_of(i);
    const RowGeometry& geometry = write.rows[i];
    kernel.streams[i] =
        make_stream(call.pool(pool), call.rows(i), write.pools[pool].layer_offset(0, 1), geometry);
    most_bytes = std::max(most_bytes, geometry.row_bytes());
  }
  if (write.padded_token_bytes != 0) {
    // Its token is cleared before any part of a row comes, so one item does it all.
    const WriteRows::Stream& keys = kernel.streams[0];
    kernel.padded_unit = unit_bytes({address(keys.pool), keys.layer_bytes, keys.geometry.first,
                                     keys.geometry.page_stride, keys.geometry.token_stride,
                                     write.padded_token_bytes});
  } else {
    kernel.num_parts = std::max<int64_t>(1, ceil_div(most_bytes, WriteRows::kPartBytes));
  }
  return device_error(kOperation, launch(device, kernel));
}

}  // namespace
}  // namespace pagedkv::cuda

// Ids are on the device, so mode "raise" drops as "drop" does.
XLA_FFI_Error* PagedkvCudaWriteKv(XLA_FFI_CallFrame* frame) {
  using Stream = xla::ffi::PlatformStream<pagedkv::cuda::DeviceStream>;
  return pagedkv::run_write</*kQuantized=*/false, Stream>(
      frame, {xla::ffi::Traits::kCmdBufferCompatible}, pagedkv::cuda::write_kv);
}
