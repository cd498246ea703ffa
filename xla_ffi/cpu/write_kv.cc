#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>

#include "checks.h"
#include "handlers.h"
#include "ids.h"

namespace pagedkv {
namespace {

constexpr std::string_view kOperation = "write_kv";
constexpr size_t kNumIdAxes = 2;  // a slot runs over pages and the rows of a page

// One layer of a pool and the new rows for it, as bytes.
struct Stream {
  std::byte* layer;
  const std::byte* rows;
  size_t row_bytes;

  void copy(size_t row, int32_t slot) const {
    std::memcpy(layer + static_cast<size_t>(slot) * row_bytes, rows + row * row_bytes, row_bytes);
  }
};

// Copies row i of both streams to slots[i], in order; returns how many slots were out of range.
int32_t write_rows(const Stream& key, const Stream& value, std::span<const int32_t> slots,
                   int64_t num_slots) {
  int32_t num_dropped = 0;
  for (size_t row = 0; row < slots.size(); ++row) {
    if (in_range(slots[row], num_slots)) {
      key.copy(row, slots[row]);
      value.copy(row, slots[row]);
    } else if (slots[row] != kPadding) {
      ++num_dropped;
    }
  }
  return num_dropped;
}

// The layout of one pool, after it was compared with the rows for it.
ffi::ErrorOr<PoolLayout> check_pool(std::string_view pages_name, const ffi::AnyBuffer& pages,
                                    std::string_view rows_name, const ffi::AnyBuffer& rows,
                                    const ffi::AnyBuffer& slot_mapping, const ffi::AnyBuffer& layer,
                                    bool layered) {
  const auto layout =
      pool_layout(kOperation, pages_name, pages, shape(layer).size(), layered, kNumIdAxes);
  if (!layout) return layout;
  if (!std::ranges::equal(layout->batch, shape(layer))) {
    return ffi::Unexpected(invalid_argument(kOperation, pages_name, " must have the batch axes ",
                                            Printed{shape(layer)}, " of layer, got ",
                                            Printed{shape(pages)}));
  }
  if (rows.element_type() != pages.element_type()) {
    return ffi::Unexpected(invalid_argument(kOperation, rows_name, " must be ",
                                            pages.element_type(), " as ", pages_name, ", got ",
                                            rows.element_type()));
  }
  if (!is_concatenation(shape(rows), shape(slot_mapping), layout->unit)) {
    return ffi::Unexpected(invalid_argument(
        kOperation, rows_name, " must have the axes ", Printed{shape(slot_mapping)},
        " of slot_mapping and then the row ", Printed{layout->unit}, " of ", pages_name, ", got ",
        Printed{shape(rows)}));
  }
  return layout;
}

ffi::Error check_ids_and_count(const ffi::AnyBuffer& slot_mapping, const ffi::AnyBuffer& layer,
                               const ffi::AnyBuffer& num_dropped) {
  if (auto error = check_int32(kOperation, "slot_mapping", slot_mapping); error.failure()) {
    return error;
  }
  if (auto error = check_int32(kOperation, "layer", layer); error.failure()) return error;
  const Shape slot_axes = shape(slot_mapping);
  if (slot_axes.empty() || !is_concatenation(slot_axes, shape(layer), slot_axes.last(1))) {
    return invalid_argument(kOperation, "slot_mapping must have the axes ", Printed{shape(layer)},
                            " of layer and then one for tokens, got ", Printed{slot_axes});
  }
  return check_like(kOperation, "num_dropped", num_dropped, "layer", layer);
}

// XLA hands in the same memory for an aliased operand and result. Where it does not, the rest of
// the pool must come along.
void carry_over(const ffi::AnyBuffer& before, const ffi::AnyBuffer& after,
                const PoolLayout& layout) {
  const auto num_batches = num_elements(layout.batch);
  const int64_t num_bytes = layout.offset(num_batches.value_or(0), 0);
  if (before.untyped_data() == after.untyped_data() || num_bytes == 0) return;
  std::memcpy(after.untyped_data(), before.untyped_data(), static_cast<size_t>(num_bytes));
}

ffi::Error write_kv(ffi::AnyBuffer key_pages, ffi::AnyBuffer value_pages, ffi::AnyBuffer key,
                    ffi::AnyBuffer value, ffi::AnyBuffer slot_mapping, ffi::AnyBuffer layer,
                    ffi::Result<ffi::AnyBuffer> new_key_pages,
                    ffi::Result<ffi::AnyBuffer> new_value_pages,
                    ffi::Result<ffi::AnyBuffer> num_dropped, bool layered,
                    std::string_view mode_name) {
  const auto mode = parse_mode(mode_name);
  if (!mode) return unknown_mode(kOperation, mode_name);
  if (auto error = check_ids_and_count(slot_mapping, layer, *num_dropped); error.failure()) {
    return error;
  }
  const auto keys = check_pool("key_pages", key_pages, "key", key, slot_mapping, layer, layered);
  if (!keys) return keys.error();
  const auto values =
      check_pool("value_pages", value_pages, "value", value, slot_mapping, layer, layered);
  if (!values) return values.error();
  const size_t num_shared_axes = shape(key_pages).size() - keys->unit.size();
  if (!std::ranges::equal(
          shape(key_pages).first(num_shared_axes),
          shape(value_pages).first(shape(value_pages).size() - values->unit.size()))) {
    return invalid_argument(kOperation, "value_pages must have the pages of key_pages, ",
                            Printed{shape(key_pages)}, ", got ", Printed{shape(value_pages)});
  }
  if (auto error =
          check_like(kOperation, "the first result", *new_key_pages, "key_pages", key_pages);
      error.failure()) {
    return error;
  }
  if (auto error =
          check_like(kOperation, "the second result", *new_value_pages, "value_pages", value_pages);
      error.failure()) {
    return error;
  }

  const std::span<const int32_t> slots = int32_span(slot_mapping);
  const std::span<const int32_t> layers = int32_span(layer);
  if (*mode == Mode::kRaise) {
    if (auto error = check_layers(kOperation, layers, keys->num_layers); error.failure()) {
      return error;
    }
    if (auto error = check_ids(kOperation, "slot", slots, keys->num_units); error.failure()) {
      return error;
    }
  }

  carry_over(key_pages, *new_key_pages, *keys);
  carry_over(value_pages, *new_value_pages, *values);
  const auto num_tokens = static_cast<size_t>(shape(slot_mapping).back());
  const auto stream = [&](const ffi::AnyBuffer& pages, const ffi::AnyBuffer& rows,
                          const PoolLayout& layout, size_t batch, int32_t layer_id) {
    const auto row_bytes = static_cast<size_t>(layout.unit_bytes);
    return Stream{
        .layer = static_cast<std::byte*>(pages.untyped_data()) +
                 layout.offset(static_cast<int64_t>(batch), layer_id),
        .rows = static_cast<const std::byte*>(rows.untyped_data()) + batch * num_tokens * row_bytes,
        .row_bytes = row_bytes};
  };
  for (size_t batch = 0; batch < layers.size(); ++batch) {
    // A layer that does not exist has no slots.
    const bool layer_exists = in_range(layers[batch], keys->num_layers);
    const int32_t layer_id = layer_exists ? layers[batch] : 0;
    static_cast<int32_t*>(num_dropped->untyped_data())[batch] = write_rows(
        stream(*new_key_pages, key, *keys, batch, layer_id),
        stream(*new_value_pages, value, *values, batch, layer_id),
        slots.subspan(batch * num_tokens, num_tokens), layer_exists ? keys->num_units : 0);
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace pagedkv

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvWriteKv, pagedkv::write_kv,
                              xla::ffi::Ffi::Bind()
                                  .Arg<xla::ffi::AnyBuffer>()  // key_pages
                                  .Arg<xla::ffi::AnyBuffer>()  // value_pages
                                  .Arg<xla::ffi::AnyBuffer>()  // key
                                  .Arg<xla::ffi::AnyBuffer>()  // value
                                  .Arg<xla::ffi::AnyBuffer>()  // slot_mapping
                                  .Arg<xla::ffi::AnyBuffer>()  // layer
                                  .Ret<xla::ffi::AnyBuffer>()  // key_pages, aliased
                                  .Ret<xla::ffi::AnyBuffer>()  // value_pages, aliased
                                  .Ret<xla::ffi::AnyBuffer>()  // num_dropped
                                  .Attr<bool>("layered")       // pools start with a layer axis
                                  .Attr<std::string_view>("mode"));  // drop or raise
