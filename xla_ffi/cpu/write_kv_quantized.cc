#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include "copy_parts.h"
#include "handlers.h"
#include "ids.h"
#include "inline_vector.h"
#include "kv_layout.h"
#include "operands.h"
#include "page_scale.h"
#include "quantize_kernels.h"
#include "write_plan.h"

namespace pagedkv {
namespace {

// One layer of a pool with its scales, and the new rows for it.
struct Stream {
  std::byte* layer = nullptr;
  float* scales = nullptr;
  const std::byte* rows = nullptr;
  RowGeometry row;
  ScaleGeometry scale;
  FloatType float_type;
  CodeType code_type;
  size_t index;  // 0 for keys, 1 for values
  int64_t dim;

  std::byte* codes(int64_t page, int64_t token, int64_t head) const {
    return layer + page * row.page_stride + token * row.token_stride + row.first +
           head * row.run_stride;
  }
};

// Quantises rows. A thread has one of its own.
class Writer {
 public:
  Writer(std::span<const Stream> streams, int64_t page_size)
      : streams_(streams), page_size_(page_size) {
    size_t most = 0;
    for (const Stream& stream : streams) {
      if (stream.row.num_runs > 0) most = std::max(most, static_cast<size_t>(stream.dim));
    }
    buffer_.resize(most * (1 + sizeof(float)));
  }

  void write(size_t token_index, int32_t slot) {
    const int64_t page = slot / page_size_, token = slot % page_size_;
    for (const Stream& stream : streams_) {
      const int64_t row_bytes = stream.dim * float_bytes(stream.float_type);
      const std::byte* row =
          stream.rows + static_cast<int64_t>(token_index) * stream.row.num_runs * row_bytes;
      for (int64_t head = 0; head < stream.row.num_runs; ++head, row += row_bytes) {
        float& scale = stream.scales[stream.scale.offset(stream.index, page, token, head)];
        if (stream.scale.granularity == Granularity::kToken) {
          const float largest = kernels_.largest(stream.float_type, row, stream.dim);
          scale = scale_of(largest, stream.code_type);
        } else if (stream.scale.granularity == Granularity::kPage) {
          const float largest = kernels_.largest(stream.float_type, row, stream.dim);
          // The first token of a page begins a new one, whatever was there.
          const float before = token == 0 ? 0.0f : scale;
          scale = grown_scale(before, scale_of(largest, stream.code_type));
          if (before != 0.0f && before != scale) rescale(stream, page, head, before / scale);
        }
        quantize(stream, row, stream.codes(page, token, head), factor_of(scale));
      }
    }
  }

 private:
  void quantize(const Stream& stream, const std::byte* row, std::byte* codes, float factor) {
    if (!stream.row.is_scattered()) {
      kernels_.quantize(stream.float_type, stream.code_type, row, stream.dim, factor, codes);
      return;
    }
    kernels_.quantize(stream.float_type, stream.code_type, row, stream.dim, factor, buffer_.data());
    for (int64_t i = 0; i < stream.dim; ++i) {
      codes[i * stream.row.element_stride] = buffer_[static_cast<size_t>(i)];
    }
  }

  // All tokens of a head of a page, in steps that are larger by 1 / `factor`.
  void rescale(const Stream& stream, int64_t page, int64_t head, float factor) {
    if (!is_finite(factor)) factor = 0.0f;
    std::byte* const codes = buffer_.data();
    std::byte* const floats = codes + stream.dim;
    for (int64_t token = 0; token < page_size_; ++token) {
      std::byte* const at = stream.codes(page, token, head);
      const bool scattered = stream.row.is_scattered();
      for (int64_t i = 0; scattered && i < stream.dim; ++i) {
        codes[i] = at[i * stream.row.element_stride];
      }
      kernels_.dequantize(stream.code_type, FloatType::kF32, scattered ? codes : at, stream.dim,
                          factor, floats);
      quantize(as_floats(stream), floats, at, 1.0f);
    }
  }

  static Stream as_floats(Stream stream) {
    stream.float_type = FloatType::kF32;
    return stream;
  }

  std::span<const Stream> streams_;
  int64_t page_size_;
  const QuantizeKernels& kernels_ = quantize_kernels();
  std::vector<std::byte> buffer_;  // a row of codes, and one of floats
};

ffi::Error write_kv_quantized(const WriteCall& call, ffi::ThreadPool& threads) {
  const WritePlan& plan = call.plan();
  if (plan.mode == Mode::kRaise) {
    if (auto error = check_write_ids(call); error.failure()) return error;
  }
  const CheckedWrite& write = plan.write;
  const CheckedQuantization& quantization = *plan.quantization;
  const size_t num_streams = write.rows.size();
  InlineVector<Stream, 2> streams;
  for (size_t stream = 0; stream < num_streams; ++stream) {
    const QuantizedRows& rows = quantization.rows[stream];
    streams.push_back({.row = write.rows[stream],
                       .scale = quantization.scales[plan.layout->pool_of(stream)],
                       .float_type = rows.float_type,
                       .code_type = rows.code_type,
                       .index = stream,
                       .dim = rows.dim});
  }
  for (size_t i = 0; i < write.pools.size(); ++i) {
    carry_over(call.pool_before(i), call.pool(i), call.pool_bytes(i));
    carry_over(call.scales_before(i), call.scales(i), call.scale_bytes(i));
  }
  const int64_t page_size = write.pools[0].size(AxisRole::kTokens);
  const size_t num_tokens = plan.num_tokens;
  const auto all_slots = call.slots(), layers = call.layers();
  for (size_t batch = 0; batch < layers.size(); ++batch) {
    // A layer that does not exist has no slots.
    const bool layer_exists = in_range(layers[batch], write.pools[0].num_layers);
    const int64_t layer_id = layer_exists ? layers[batch] : 0;
    const int64_t num_slots = layer_exists ? write.pools[0].num_slots() : 0;
    int64_t num_bytes = 0;
    for (size_t i = 0; i < num_streams; ++i) {
      Stream& stream = streams[i];
      const size_t pool = plan.layout->pool_of(i);
      const int64_t token_bytes = stream.row.num_runs * stream.dim * float_bytes(stream.float_type);
      stream.layer =
          call.pool(pool) + write.pools[pool].layer_offset(static_cast<int64_t>(batch), layer_id);
      stream.scales =
          call.scales(pool) + stream.scale.layer_offset(static_cast<int64_t>(batch), layer_id);
      stream.rows = call.rows(i) + static_cast<int64_t>(batch * num_tokens) * token_bytes;
      num_bytes += static_cast<int64_t>(num_tokens) * token_bytes;
    }
    const auto slots = all_slots.subspan(batch * num_tokens, num_tokens);
    // A page is of one part: rows of equal slots, and scales, are written in order.
    for_parts(threads, num_bytes, [&](int64_t part, int64_t num_parts) {
      if (num_tokens == 0) return;
      Writer writer(streams.span(), page_size);
      for (size_t i = 0; i < num_tokens; ++i) {
        if (!in_range(slots[i], num_slots)) continue;
        if (num_parts > 1 && slots[i] / page_size % num_parts != part) continue;
        if (write.padded_token_bytes != 0) {
          std::memset(streams[0].layer + streams[0].row.offset(slots[i]), 0,
                      static_cast<size_t>(write.padded_token_bytes));
        }
        writer.write(i, slots[i]);
      }
    });
    call.num_dropped()[batch] = count_dropped(slots, num_slots);
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace pagedkv

XLA_FFI_Error* PagedkvWriteKvQuantized(XLA_FFI_CallFrame* frame) {
  return pagedkv::run_write</*kQuantized=*/true, xla::ffi::ThreadPool>(frame, {},
                                                                       pagedkv::write_kv_quantized);
}
