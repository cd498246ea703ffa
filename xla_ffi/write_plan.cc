#include "write_plan.h"

#include "inline_vector.h"
#include "operands.h"

namespace pagedkv {
namespace {

constexpr std::string_view kOperation = "write_kv";

ffi::Error make_plan(ffi::AnyBuffer slot_mapping, ffi::AnyBuffer layer, ffi::RemainingArgs arrays,
                     ffi::AnyBuffer num_dropped, ffi::RemainingRets new_arrays,
                     std::string_view layout_name, bool layered, std::string_view mode_name,
                     bool is_quantized, std::optional<WritePlan>& plan) {
  const KvLayout* layout = find_layout(layout_name);
  if (layout == nullptr) return invalid_argument(kOperation, "no layout ", layout_name);
  const size_t num_pools = layout->num_pools(), num_streams = layout->num_streams();
  const size_t num_arrays = num_pools * (is_quantized ? 2 : 1);
  InlineVector<ffi::AnyBuffer, 6> operands;
  InlineVector<ffi::AnyBuffer, 4> results;
  if (auto error = read_operands(kOperation, arrays, num_arrays + num_streams, operands);
      error.failure()) {
    return error;
  }
  if (auto error = read_results(kOperation, new_arrays, num_arrays, results); error.failure()) {
    return error;
  }
  const auto mode = parse_mode(mode_name);
  if (!mode) return unknown_mode(kOperation, mode_name);
  const auto pools = operands.span().first(num_pools);
  const auto scales = operands.span().subspan(num_pools, num_arrays - num_pools);
  const auto rows = operands.span().last(num_streams);
  const auto new_pools = results.span().first(num_pools);
  const auto write = check_write(kOperation, slot_mapping, layer, num_dropped, *layout, pools,
                                 new_pools, rows, layered, /*by_head=*/is_quantized);
  if (!write) return write.error();
  WritePlan made{.layout = layout,
                 .mode = *mode,
                 .write = *write,
                 .quantization = std::nullopt,
                 .num_batches = num_elements(layer),
                 .num_tokens = static_cast<size_t>(shape(slot_mapping).back())};
  if (is_quantized) {
    const auto checked = check_quantization(kOperation, layer, *layout, pools, scales,
                                            results.span().subspan(num_pools), rows, layered);
    if (!checked) return checked.error();
    made.quantization = *checked;
  } else if (auto error = check_row_dtypes(kOperation, *layout, pools, rows); error.failure()) {
    return error;
  }
  plan = made;
  return ffi::Error::Success();
}

}  // namespace

ffi::Error check_write_ids(const WriteCall& call) {
  const PoolGeometry& first = call.plan().write.pools.front();
  if (auto error = check_layers(kOperation, call.layers(), first.num_layers); error.failure()) {
    return error;
  }
  return check_ids(kOperation, "slot", call.slots(), first.num_slots());
}

XLA_FFI_Error* plan_write(XLA_FFI_CallFrame* frame, bool is_quantized,
                          std::initializer_list<ffi::Traits> traits,
                          std::optional<WritePlan>& plan) {
  const auto handler =
      ffi::Ffi::Bind()
          .Arg<ffi::AnyBuffer>()  // slot_mapping
          .Arg<ffi::AnyBuffer>()  // layer
          .RemainingArgs()        // pools, scales, new rows
          .Ret<ffi::AnyBuffer>()  // num_dropped
          .RemainingRets()        // pools, scales
          .Attr<std::string_view>("layout")
          .Attr<bool>("layered")
          .Attr<std::string_view>("mode")
          .To(
              [&](ffi::AnyBuffer slot_mapping, ffi::AnyBuffer layer, ffi::RemainingArgs arrays,
                  ffi::Result<ffi::AnyBuffer> num_dropped, ffi::RemainingRets new_arrays,
                  std::string_view layout, bool layered, std::string_view mode) {
                return make_plan(slot_mapping, layer, arrays, *num_dropped, new_arrays, layout,
                                 layered, mode, is_quantized, plan);
              },
              traits);
  return handler->Call(frame);
}

}  // namespace pagedkv
