#include <algorithm>
#include <cstddef>
#include <string_view>

#include "calls.h"
#include "checks.h"
#include "cuda/handlers.h"
#include "device.h"
#include "inline_vector.h"
#include "kv_layout.h"
#include "operands.h"
#include "pagedkv/math.h"
#include "write_checks.h"
#include "write_rows.h"

namespace pagedkv::cuda {
namespace {

constexpr std::string_view kOperation = "write_kv";

// What a kernel is told of one stream.
WriteRows::Stream make_stream(const ffi::AnyBuffer& pool, const ffi::AnyBuffer& rows,
                              int64_t layer_bytes, const RowGeometry& geometry) {
  WriteRows::Stream stream{.pool = static_cast<std::byte*>(pool.untyped_data()),
                           .rows = static_cast<const std::byte*>(rows.untyped_data()),
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

ffi::Error write_kv(DeviceStream device, ffi::AnyBuffer slot_mapping, ffi::AnyBuffer layer,
                    ffi::RemainingArgs pools_and_rows, ffi::Result<ffi::AnyBuffer> num_dropped,
                    ffi::RemainingRets new_pools, std::string_view layout_name, bool layered,
                    std::string_view mode) {
  const KvLayout* layout = find_layout(layout_name);
  if (layout == nullptr) return invalid_argument(kOperation, "no layout ", layout_name);
  const size_t num_pools = layout->num_pools(), num_streams = layout->num_streams();
  InlineVector<ffi::AnyBuffer, 4> operands;
  InlineVector<ffi::AnyBuffer, 2> results;
  if (auto error = read_operands(kOperation, pools_and_rows, num_pools + num_streams, operands);
      error.failure()) {
    return error;
  }
  if (auto error = read_results(kOperation, new_pools, num_pools, results); error.failure()) {
    return error;
  }
  if (auto error = check_mode(kOperation, mode); error.failure()) return error;
  const auto pools = operands.span().first(num_pools);
  const auto rows = operands.span().last(num_streams);
  const auto checked = check_write(kOperation, slot_mapping, layer, *num_dropped, *layout, pools,
                                   results.span(), rows, layered, Mode::kDrop, /*by_head=*/false);
  if (!checked) return checked.error();
  if (auto error = check_row_dtypes(kOperation, *layout, pools, rows); error.failure()) {
    return error;
  }
  const CheckedWrite& write = **checked;
  const auto num_batches = static_cast<int64_t>(num_elements(layer));
  if (num_batches == 0) return ffi::Error::Success();
  for (size_t i = 0; i < num_pools; ++i) {
    if (auto error = carry_over(kOperation, device, pools[i], results[i],
                                write.pools[i].layer_offset(num_batches, 0));
        error.failure()) {
      return error;
    }
  }
  const PoolGeometry& first = write.pools.front();
  WriteRows kernel{.slots = static_cast<const int32_t*>(slot_mapping.untyped_data()),
                   .layers = static_cast<const int32_t*>(layer.untyped_data()),
                   .num_dropped = static_cast<int32_t*>(num_dropped->untyped_data()),
                   .num_batches = num_batches,
                   .num_rows = shape(slot_mapping).back(),
                   .num_layers = first.num_layers,
                   .num_slots = first.num_slots(),
                   .num_parts = 1,
                   .padded_token_bytes = write.padded_token_bytes,
                   .padded_unit = 1,
                   .num_streams = static_cast<int32_t>(num_streams),
                   .streams = {}};
  int64_t most_bytes = 0;
  for (size_t i = 0; i < num_streams; ++i) {
    const size_t pool = layout->pool_of(i);
    const RowGeometry& geometry = write.rows[i];
    kernel.streams[i] =
        make_stream(results[pool], rows[i], write.pools[pool].layer_offset(0, 1), geometry);
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

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvCudaWriteKv, pagedkv::cuda::write_kv,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::PlatformStream<pagedkv::cuda::DeviceStream>>()
                                  .Arg<xla::ffi::AnyBuffer>()  // slot_mapping
                                  .Arg<xla::ffi::AnyBuffer>()  // layer
                                  .RemainingArgs()             // pools, then new rows
                                  .Ret<xla::ffi::AnyBuffer>()  // num_dropped
                                  .RemainingRets()             // pools, aliased
                                  .Attr<std::string_view>("layout")
                                  .Attr<bool>("layered")            // a layer axis comes first
                                  .Attr<std::string_view>("mode"),  // drops, whichever it is
                              {xla::ffi::Traits::kCmdBufferCompatible});
