#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "checks.h"
#include "copy_bytes.h"
#include "handlers.h"
#include "ids.h"
#include "kv_layout.h"
#include "operands.h"
#include "parallel_for.h"

namespace pagedkv {
namespace {

constexpr std::string_view kOperation = "write_kv";

// Parts of the pages for each thread, so that one with more rows than others delays nobody.
constexpr int64_t kPartsPerThread = 2;

// One layer of a pool and the new rows for it, as bytes.
struct Stream {
  std::byte* layer;
  const std::byte* rows;
  RowGeometry geometry;

  template <bool kStreaming>
  void copy(size_t row, int32_t slot) const {
    std::byte* target = layer + geometry.offset(slot);
    const std::byte* source = rows + row * static_cast<size_t>(geometry.row_bytes());
    const auto num_bytes = static_cast<size_t>(geometry.run_bytes);
    if (geometry.is_scattered()) return scatter(target, source);
    for (int64_t run = 0; run < geometry.num_runs; ++run) {
      if constexpr (kStreaming) {
        stream_bytes(target, source, num_bytes);
      } else {
        std::memcpy(target, source, num_bytes);
      }
      target += geometry.run_stride;
      source += num_bytes;
    }
  }

  // Elements one by one.
  void scatter(std::byte* target, const std::byte* source) const {
    const auto width = static_cast<size_t>(geometry.element_bytes);
    for (int64_t run = 0; run < geometry.num_runs; ++run) {
      std::byte* element = target + run * geometry.run_stride;
      for (int64_t byte = 0; byte < geometry.run_bytes; byte += geometry.element_bytes) {
        std::memcpy(element, source, width);
        element += geometry.element_stride;
        source += width;
      }
    }
  }
};

// One layer of the pools, and what is written there.
struct Write {
  std::span<const Stream> streams;
  std::span<const int32_t> slots;
  int64_t num_slots;
  int64_t page_size;
  size_t padded_token_bytes;  // cleared before the rows of a token come; 0 if they fill it

  // Copies, in order, the rows of the pages that are congruent to `part` modulo `num_parts`.
  template <bool kStreaming>
  void rows_of_part(int64_t part, int64_t num_parts) const {
    for (size_t row = 0; row < slots.size(); ++row) {
      const int32_t slot = slots[row];
      if (!in_range(slot, num_slots)) continue;
      if (num_parts > 1 && slot / page_size % num_parts != part) continue;
      if (padded_token_bytes != 0) {
        std::memset(streams[0].layer + streams[0].geometry.offset(slot), 0, padded_token_bytes);
      }
      for (const Stream& stream : streams) stream.copy<kStreaming>(row, slot);
    }
    if constexpr (kStreaming) end_streaming();
  }
};

// Rows of equal slots are of one part, so the last one wins whatever the threads do.
void write_rows(ffi::ThreadPool& threads, const Write& write, bool streaming, int64_t num_workers) {
  if (num_workers == 1) {
    streaming ? write.rows_of_part<true>(0, 1) : write.rows_of_part<false>(0, 1);
    return;
  }
  const int64_t num_parts = num_workers * kPartsPerThread;
  parallel_for(threads, num_workers, num_parts, [&](int64_t, int64_t part) {
    streaming ? write.rows_of_part<true>(part, num_parts)
              : write.rows_of_part<false>(part, num_parts);
  });
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

ffi::Error check_pool(std::string_view name, const PoolGeometry& geometry,
                      const ffi::AnyBuffer& pages, const ffi::AnyBuffer& after,
                      const ffi::AnyBuffer& layer) {
  if (!std::ranges::equal(geometry.batch, shape(layer))) {
    return invalid_argument(kOperation, name, " must have the batch axes ", Printed{shape(layer)},
                            " of layer, got ", Printed{shape(pages)});
  }
  return check_like(kOperation, "a result", after, name, pages);
}

// The geometry of the new rows of a stream, after they were compared with their pool.
ffi::ErrorOr<RowGeometry> check_rows(std::string_view name, const ffi::AnyBuffer& rows,
                                     const ffi::AnyBuffer& slot_mapping,
                                     const ffi::AnyBuffer& pages, const PoolGeometry& pool,
                                     const KvLayout& layout, size_t stream) {
  if (rows.element_type() != pages.element_type()) {
    return ffi::Unexpected(invalid_argument(kOperation, name, " must be ", pages.element_type(),
                                            " as its pages, got ", rows.element_type()));
  }
  const Shape axes = shape(rows);
  const size_t row_rank = layout.has_heads() ? 2 : 1;
  if (axes.size() < row_rank || !is_concatenation(axes, shape(slot_mapping), axes.last(row_rank))) {
    return ffi::Unexpected(invalid_argument(
        kOperation, name, " must have the axes ", Printed{shape(slot_mapping)},
        " of slot_mapping and then ", row_rank, " for a row, got ", Printed{axes}));
  }
  const int64_t num_heads = layout.has_heads() ? axes[axes.size() - 2] : 1;
  return row_geometry(kOperation, name, pool, layout, stream, num_heads, axes.back());
}

ffi::Error write_kv(ffi::ThreadPool threads, ffi::AnyBuffer slot_mapping, ffi::AnyBuffer layer,
                    ffi::RemainingArgs pools_and_rows, ffi::Result<ffi::AnyBuffer> num_dropped,
                    ffi::RemainingRets new_pools, std::string_view layout_name, bool layered,
                    std::string_view mode_name) {
  const auto mode = parse_mode(mode_name);
  if (!mode) return unknown_mode(kOperation, mode_name);
  const KvLayout* layout = find_layout(layout_name);
  if (layout == nullptr) return invalid_argument(kOperation, "no layout ", layout_name);
  if (auto error = check_ids_and_count(slot_mapping, layer, *num_dropped); error.failure()) {
    return error;
  }
  const size_t num_pools = layout->num_pools(), num_streams = layout->num_streams();
  const auto operands = read_operands(kOperation, pools_and_rows, num_pools + num_streams);
  if (!operands) return operands.error();
  const auto results = read_results(kOperation, new_pools, num_pools);
  if (!results) return results.error();

  static constexpr std::string_view kPools[] = {"key_pages", "value_pages"};
  static constexpr std::string_view kRows[] = {"key", "value"};
  std::vector<PoolGeometry> pools;
  for (size_t i = 0; i < num_pools; ++i) {
    const ffi::AnyBuffer& pages = (*operands)[i];
    const auto geometry =
        pool_geometry(kOperation, kPools[i], pages, *layout, shape(layer).size(), layered);
    if (!geometry) return geometry.error();
    if (auto error = check_pool(kPools[i], *geometry, pages, (*results)[i], layer);
        error.failure()) {
      return error;
    }
    pools.push_back(*geometry);
  }
  for (const AxisRole role : {AxisRole::kPages, AxisRole::kTokens}) {
    if (pools.back().size(role) != pools[0].size(role) ||
        pools.back().num_layers != pools[0].num_layers) {
      return invalid_argument(kOperation, "value_pages must have the pages of key_pages, ",
                              Printed{shape((*operands)[0])}, ", got ",
                              Printed{shape((*operands)[num_pools - 1])});
    }
  }
  std::vector<RowGeometry> rows;
  int64_t token_bytes = 0;
  for (size_t stream = 0; stream < num_streams; ++stream) {
    const size_t pool = layout->pool_of(stream);
    const auto geometry = check_rows(kRows[stream], (*operands)[num_pools + stream], slot_mapping,
                                     (*operands)[pool], pools[pool], *layout, stream);
    if (!geometry) return geometry.error();
    token_bytes += geometry->row_bytes();
    rows.push_back(*geometry);
  }
  const Shape key_axes = shape((*operands)[num_pools]);
  if (layout->sharing != Sharing::kSeparate && num_streams == 2 &&
      !std::ranges::equal(key_axes, shape((*operands)[num_pools + 1]))) {
    return invalid_argument(kOperation, "value must have the shape ", Printed{key_axes},
                            " of key in layout ", layout->name, ", got ",
                            Printed{shape((*operands)[num_pools + 1])});
  }

  const std::span<const int32_t> slots = int32_span(slot_mapping);
  const std::span<const int32_t> layers = int32_span(layer);
  const int64_t num_slots = pools[0].num_slots();
  if (*mode == Mode::kRaise) {
    if (auto error = check_layers(kOperation, layers, pools[0].num_layers); error.failure()) {
      return error;
    }
    if (auto error = check_ids(kOperation, "slot", slots, num_slots); error.failure()) {
      return error;
    }
  }
  const int64_t num_batches = static_cast<int64_t>(layers.size());
  for (size_t i = 0; i < num_pools; ++i) {
    carry_over((*operands)[i], (*results)[i], pools[i].layer_offset(num_batches, 0));
  }

  const auto num_tokens = static_cast<size_t>(shape(slot_mapping).back());
  const int64_t num_bytes = static_cast<int64_t>(num_tokens) * token_bytes;
  const int64_t padded_bytes = padded_token_bytes(
      pools[0], *layout, layout->has_heads() ? key_axes[key_axes.size() - 2] : 1, key_axes.back());
  std::vector<Stream> streams(num_streams);
  for (size_t batch = 0; batch < layers.size(); ++batch) {
    // A layer that does not exist has no slots.
    const bool layer_exists = in_range(layers[batch], pools[0].num_layers);
    for (size_t stream = 0; stream < num_streams; ++stream) {
      const size_t pool = layout->pool_of(stream);
      streams[stream] = Stream{
          .layer = static_cast<std::byte*>((*results)[pool].untyped_data()) +
                   pools[pool].layer_offset(static_cast<int64_t>(batch),
                                            layer_exists ? layers[batch] : 0),
          .rows = static_cast<const std::byte*>((*operands)[num_pools + stream].untyped_data()) +
                  batch * num_tokens * static_cast<size_t>(rows[stream].row_bytes()),
          .geometry = rows[stream]};
    }
    const Write write{.streams = streams,
                      .slots = slots.subspan(batch * num_tokens, num_tokens),
                      .num_slots = layer_exists ? num_slots : 0,
                      .page_size = pools[0].size(AxisRole::kTokens),
                      .padded_token_bytes = static_cast<size_t>(padded_bytes)};
    const int64_t num_workers =
        num_bytes < kParallelBytes ? 1 : std::max<int64_t>(1, threads.num_threads());
    write_rows(threads, write, num_bytes >= kStreamingBytes, num_workers);
    static_cast<int32_t*>(num_dropped->untyped_data())[batch] =
        count_dropped(write.slots, write.num_slots);
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace pagedkv

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvWriteKv, pagedkv::write_kv,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()  // slot_mapping
                                  .Arg<xla::ffi::AnyBuffer>()  // layer
                                  .RemainingArgs()             // pools, then new rows
                                  .Ret<xla::ffi::AnyBuffer>()  // num_dropped
                                  .RemainingRets()             // pools, aliased
                                  .Attr<std::string_view>("layout")
                                  .Attr<bool>("layered")             // a layer axis comes first
                                  .Attr<std::string_view>("mode"));  // drop or raise
