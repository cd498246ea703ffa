#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <span>

#include "copy_bytes.h"
#include "copy_parts.h"
#include "handlers.h"
#include "ids.h"
#include "kv_layout.h"
#include "operands.h"
#include "write_plan.h"

namespace pagedkv {
namespace {

// One layer of a pool and the new rows for it, as bytes.
struct Stream {
  std::byte* layer;
  const std::byte* rows;
  const RowGeometry* geometry;

  // Copies a row of any kind.
  void copy(size_t row, int64_t offset) const {
    std::byte* target = layer + offset;
    const std::byte* source = rows + row * static_cast<size_t>(geometry->row_bytes());
    if (geometry->is_scattered()) return scatter(target, source);
    for (int64_t run = 0; run < geometry->num_runs; ++run) {
      std::memcpy(target, source, static_cast<size_t>(geometry->run_bytes));
      target += geometry->run_stride;
      source += geometry->run_bytes;
    }
  }

  // Elements one by one.
  void scatter(std::byte* target, const std::byte* source) const {
    const auto width = static_cast<size_t>(geometry->element_bytes);
    for (int64_t run = 0; run < geometry->num_runs; ++run) {
      std::byte* element = target + run * geometry->run_stride;
      for (int64_t byte = 0; byte < geometry->run_bytes; byte += geometry->element_bytes) {
        std::memcpy(element, source, width);
        element += geometry->element_stride;
        source += width;
      }
    }
  }
};

// A stream whose rows are one run each, in slots back to back, as in most layouts. By value: what a
// copy writes could be anything, so a compiler would read numbers behind a pointer anew for each
// row.
struct PlainStream {
  explicit PlainStream(const Stream& stream)
      : layer(stream.layer),
        rows(stream.rows),
        stride(stream.geometry->token_stride),
        num_bytes(static_cast<size_t>(stream.geometry->run_bytes)) {}

  template <bool kStreaming>
  void copy(size_t row, int64_t slot) const {
    std::byte* const target = layer + slot * stride;
    if constexpr (kStreaming) {
      stream_bytes(target, rows + row * num_bytes, num_bytes);
    } else {
      std::memcpy(target, rows + row * num_bytes, num_bytes);
    }
  }

  std::byte* layer;
  const std::byte* rows;
  int64_t stride;
  size_t num_bytes;
};

// One layer of the pools, and what is written there.
struct LayerWrite {
  std::span<const Stream> streams;
  std::span<const int32_t> slots;
  int64_t num_slots;
  int64_t page_size;
  size_t padded_token_bytes;  // cleared before the rows of a token come; 0 if they fill it
  bool is_plain;              // slots lie back to back, so that no page need be found

  // Calls `copy(row, slot)`, in order, for the rows of the pages that are congruent to `part`
  // modulo `num_parts`; returns how many slots of the whole call are out of range.
  template <typename Copy>
  int32_t for_rows(int64_t part, int64_t num_parts, const Copy copy) const {
    int32_t num_dropped = 0;
    const std::span<const int32_t> ids = slots;
    const int64_t end = num_slots, tokens = page_size;
    for (size_t row = 0; row < ids.size(); ++row) {
      const int32_t slot = ids[row];
      if (!in_range(slot, end)) {
        num_dropped += slot != kPadding;
      } else if (num_parts == 1 || slot / tokens % num_parts == part) {
        copy(row, slot);
      }
    }
    return num_dropped;
  }

  template <bool kStreaming>
  int32_t rows_of_part(int64_t part, int64_t num_parts) const {
    if (is_plain) {
      const PlainStream first(streams.front()), last(streams.back());
      const int32_t num_dropped =
          for_rows(part, num_parts, [first, last](size_t row, int64_t slot) {
            first.copy<kStreaming>(row, slot);
            last.copy<kStreaming>(row, slot);
          });
      if constexpr (kStreaming) end_streaming();
      return num_dropped;
    }
    return for_rows(part, num_parts, [&](size_t row, int32_t slot) {
      if (padded_token_bytes != 0) {
        std::memset(streams[0].layer + streams[0].geometry->offset(slot), 0, padded_token_bytes);
      }
      for (const Stream& stream : streams) stream.copy(row, stream.geometry->offset(slot));
    });
  }
};

// Rows of equal slots are of one part, so the last one wins whatever the threads do. Returns how
// many slots are out of range.
int32_t write_rows(ffi::ThreadPool& threads, const LayerWrite& write, int64_t num_bytes) {
  const bool streaming = num_bytes >= kStreamingBytes;
  int32_t num_dropped = 0;
  for_parts(threads, num_bytes, [&](int64_t part, int64_t num_parts) {
    const int32_t found = streaming ? write.rows_of_part<true>(part, num_parts)
                                    : write.rows_of_part<false>(part, num_parts);
    if (part == 0) num_dropped = found;  // each part finds them all
  });
  return num_dropped;
}

ffi::Error write_kv(const WriteCall& call, ffi::ThreadPool& threads) {
  const WritePlan& plan = call.plan();
  if (plan.mode == Mode::kRaise) {
    if (auto error = check_write_ids(call); error.failure()) return error;
  }
  const CheckedWrite& write = plan.write;
  const PoolGeometry& first = write.pools.front();
  const size_t num_streams = write.rows.size(), num_tokens = plan.num_tokens;
  for (size_t i = 0; i < write.pools.size(); ++i) {
    carry_over(call.pool_before(i), call.pool(i), call.pool_bytes(i));
  }
  const auto slots = call.slots(), layers = call.layers();
  const int64_t num_bytes = static_cast<int64_t>(num_tokens) * write.token_bytes;
  std::array<Stream, 2> streams;
  for (size_t batch = 0; batch < layers.size(); ++batch) {
    // A layer that does not exist has no slots.
    const bool layer_exists = in_range(layers[batch], first.num_layers);
    for (size_t stream = 0; stream < num_streams; ++stream) {
      const size_t pool = plan.layout->pool_of(stream);
      const RowGeometry& rows = write.rows[stream];
      streams[stream] = Stream{
          .layer =
              call.pool(pool) + write.pools[pool].layer_offset(static_cast<int64_t>(batch),
                                                               layer_exists ? layers[batch] : 0),
          .rows = call.rows(stream) + batch * num_tokens * static_cast<size_t>(rows.row_bytes()),
          .geometry = &rows};
    }
    const LayerWrite of_layer{.streams = std::span(streams).first(num_streams),
                              .slots = slots.subspan(batch * num_tokens, num_tokens),
                              .num_slots = layer_exists ? first.num_slots() : 0,
                              .page_size = first.size(AxisRole::kTokens),
                              .padded_token_bytes = static_cast<size_t>(write.padded_token_bytes),
                              .is_plain = write.is_plain};
    call.num_dropped()[batch] = write_rows(threads, of_layer, num_bytes);
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace pagedkv

XLA_FFI_Error* PagedkvWriteKv(XLA_FFI_CallFrame* frame) {
  return pagedkv::run_write</*kQuantized=*/false, xla::ffi::ThreadPool>(frame, {},
                                                                        pagedkv::write_kv);
}
