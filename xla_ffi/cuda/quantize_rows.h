#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "float_formats.h"
#include "host_device.h"
#include "number_codes.h"
#include "page_ids.h"
#include "page_scale.h"
#include "row_geometry.h"
#include "units.h"

namespace pagedkv::cuda {

/// Calls `function(Number{})` with how numbers of a type are read and written.
template <typename Function>
PAGEDKV_DEVICE void with_number(FloatType type, const Function& function) {
  switch (type) {
    case FloatType::kF32:
      return function(Float32{});
    case FloatType::kF16:
      return function(Float16{});
    default:
      return function(Bfloat16{});
  }
}

/// Calls `function(Code{})` with how codes of a type are made and read.
template <typename Function>
PAGEDKV_DEVICE void with_code(CodeType type, const Function& function) {
  switch (type) {
    case CodeType::kInt8:
      return function(Int8{});
    case CodeType::kInt4:
      return function(Int4{});
    case CodeType::kE4m3:
      return function(E4m3{});
    default:
      return function(E5m2{});
  }
}

/// Writes new rows of K/V as codes and scales to the slots of one layer of the pools. Its items, in
/// any order and at the same time: first one for each element of the batch, which counts its
/// dropped slots; then one for each row and head of a stream, or one a row where tokens are cleared
/// first.
///
/// Where the tokens of a page share a scale, what a row does depends on the rows before it. So the
/// item of the first row in a page writes all of that page, in order, and those of the others do
/// nothing. Elsewhere of equal slots the last row wins.
struct QuantizeRows {
  /// Keys or values.
  struct Stream {
    std::byte* pool;
    float* scales;
    const std::byte* rows;
    int64_t layer_bytes;
    int64_t layer_scales;
    RowGeometry geometry;
    int64_t first_scale;
    int64_t page_scales;   // between two pages
    int64_t token_scales;  // between two tokens
    int64_t head_scales;   // between two heads
    int64_t dim;
    FloatType float_type;
    CodeType code_type;

    PAGEDKV_HOST_DEVICE int64_t num_heads() const { return geometry.num_runs; }
    PAGEDKV_HOST_DEVICE int64_t head_bytes() const { return dim * float_bytes(float_type); }
  };
  enum class Scales : uint8_t { kStatic, kPage, kToken };

  const int32_t* slots;
  const int32_t* layers;
  int32_t* num_dropped;
  int64_t num_batches;
  int64_t num_rows;  // of an element of the batch
  int64_t num_layers;
  int64_t num_slots;
  int64_t page_size;
  int64_t padded_token_bytes;  // cleared before the rows of a token come; 0 if they fill it
  int64_t padded_unit;
  Scales scales[2];  // by stream
  int32_t num_streams;
  Stream streams[2];

  int64_t num_heads() const {
    return streams[0].num_heads() + (num_streams > 1 ? streams[1].num_heads() : 0);
  }
  int64_t items_per_row() const { return padded_token_bytes != 0 ? 1 : num_heads(); }
  /// Without a slot there may be any number of heads.
  int64_t num_items() const {
    const bool has_slots = num_slots != 0 && num_layers != 0;
    return num_batches * (1 + (has_slots ? num_rows * items_per_row() : 0));
  }

  template <typename Group>
  PAGEDKV_DEVICE void operator()(const Group& group, int64_t item) const {
    if (item < num_batches) {
      return write_num_dropped(group, slots + item * num_rows, num_rows, slots_of(item),
                               num_dropped + item);
    }
    item -= num_batches;
    const bool by_token = padded_token_bytes != 0;
    const int64_t keys = streams[0].num_heads();
    const int64_t per_row = by_token ? 1 : keys + (num_streams > 1 ? streams[1].num_heads() : 0);
    const int64_t in_batches = divide(item, per_row);
    const int64_t batch = divide(in_batches, num_rows), row = in_batches - batch * num_rows;
    if (!in_range(slots[in_batches], slots_of(batch))) return;
    const int64_t head = item - in_batches * per_row;
    Work work{.batch = batch, .first_stream = 0, .last_stream = num_streams};
    if (!by_token) {
      work.first_stream = head < keys ? 0 : 1;
      work.last_stream = work.first_stream + 1;
      work.head = head - (head < keys ? 0 : keys);
    }
    write_rows(group, work, row);
  }

 private:
  // What an item does of the rows it is for: one head of a stream, or all of all.
  struct Work {
    int64_t batch;
    int32_t first_stream, last_stream;
    int64_t head = -1;
  };

  // A layer that does not exist has no slots.
  PAGEDKV_DEVICE int64_t slots_of(int64_t batch) const {
    return in_range(layers[batch], num_layers) ? num_slots : 0;
  }

  // A row that no later one overwrites; or all rows of its page, in order, if it is the first
  // there.
  template <typename Group>
  PAGEDKV_DEVICE void write_rows(const Group& group, const Work& work, int64_t row) const {
    const int32_t* const all = slots + work.batch * num_rows;
    const int64_t page = all[row] / page_size;
    const auto is_of_page = [&](int64_t i) {
      return in_range(all[i], num_slots) && all[i] / page_size == page;
    };
    const bool by_page = scales[0] == Scales::kPage || scales[1] == Scales::kPage;
    if (by_page ? group.any(row, is_of_page) : is_overwritten(group, all, num_rows, row)) return;
    for (int64_t i = row; i < (by_page ? num_rows : row + 1); ++i) {
      if (is_of_page(i)) write_token(group, work, i);
    }
  }

  template <typename Group>
  PAGEDKV_DEVICE void write_token(const Group& group, const Work& work, int64_t row) const {
    const int64_t layer = work.batch * num_layers + layers[work.batch];
    const int64_t in_batches = work.batch * num_rows + row;
    const int32_t slot = slots[in_batches];
    if (work.head < 0) {
      group.sync();  // the row before may have had the same slot
      const Stream& keys = streams[0];
      clear(group, keys.pool + layer * keys.layer_bytes + keys.geometry.offset(slot),
            padded_token_bytes, padded_unit);
      group.sync();
    }
    for (int32_t stream = work.first_stream; stream < work.last_stream; ++stream) {
      const int64_t first = work.head < 0 ? 0 : work.head;
      const int64_t last = work.head < 0 ? streams[stream].num_heads() : work.head + 1;
      for (int64_t head = first; head < last; ++head) {
        write_head(group, stream, layer, in_batches, slot, head);
      }
    }
  }

  template <typename Group>
  PAGEDKV_DEVICE void write_head(const Group& group, int32_t index, int64_t layer, int64_t row,
                                 int32_t slot, int64_t head) const {
    const Stream& stream = streams[index];
    const int64_t page = slot / page_size, token = slot - page * page_size;
    const std::byte* const from =
        stream.rows + (row * stream.num_heads() + head) * stream.head_bytes();
    float* const scale_at = stream.scales + layer * stream.layer_scales + stream.first_scale +
                            page * stream.page_scales + token * stream.token_scales +
                            head * stream.head_scales;
    group.sync();  // what the row before wrote, this one reads
    float scale = *scale_at;
    if (scales[index] != Scales::kStatic) {
      const float needed = scale_of(largest(group, stream, from), stream.code_type);
      // The first token of a page begins a new one, whatever was there.
      const bool begins = scales[index] == Scales::kToken || token == 0;
      const float before = begins ? 0.0f : scale;
      scale = grown_scale(before, needed);
      group.sync();  // all have read the old one
      if (group.is_first()) *scale_at = scale;
      if (before != 0.0f && before != scale) {
        const float factor = before / scale;
        rescale(group, stream, codes_at(stream, layer, page, 0, head),
                is_finite(factor) ? factor : 0.0f);
        group.sync();
      }
    }
    quantize(group, stream, from, factor_of(scale), codes_at(stream, layer, page, token, head));
  }

  PAGEDKV_DEVICE std::byte* codes_at(const Stream& stream, int64_t layer, int64_t page,
                                     int64_t token, int64_t head) const {
    const RowGeometry& geometry = stream.geometry;
    return stream.pool + layer * stream.layer_bytes + geometry.first + page * geometry.page_stride +
           token * geometry.token_stride + head * geometry.run_stride;
  }

  template <typename Group>
  PAGEDKV_DEVICE float largest(const Group& group, const Stream& stream,
                               const std::byte* row) const {
    uint32_t most = 0;
    with_number(stream.float_type, [&](auto any) {
      using Float = decltype(any);
      // Of magnitudes, the order of the bits is that of the numbers; NaNs are above all.
      most = group.max(stream.dim, [&](int64_t i) {
        return std::bit_cast<uint32_t>(Float::load(row + i * Float::kBytes)) & ~kSign;
      });
    });
    return std::bit_cast<float>(most);
  }

  template <typename Group>
  PAGEDKV_DEVICE void quantize(const Group& group, const Stream& stream, const std::byte* row,
                               float factor, std::byte* codes) const {
    const int64_t stride = stream.geometry.element_stride;
    with_number(stream.float_type, [&](auto any_float) {
      using Float = decltype(any_float);
      const auto number = [&](int64_t i) { return Float::load(row + i * Float::kBytes) * factor; };
      with_code(stream.code_type, [&](auto any_code) {
        using Code = decltype(any_code);
        if constexpr (Code::kBits == 8) {
          group.for_each(stream.dim, [&](int64_t i) {
            codes[i * stride] = static_cast<std::byte>(Code::code(number(i)));
          });
        } else {
          group.for_each(stream.dim / 2, [&](int64_t i) {
            codes[i] = static_cast<std::byte>(Code::code(number(2 * i)) |
                                              Code::code(number(2 * i + 1)) << 4);
          });
        }
      });
    });
  }

  // All tokens of a head of a page, in steps that are larger by 1 / `factor`. Each code becomes
  // another where it is.
  template <typename Group>
  PAGEDKV_DEVICE void rescale(const Group& group, const Stream& stream, std::byte* codes,
                              float factor) const {
    const int64_t stride = stream.geometry.element_stride;
    with_code(stream.code_type, [&](auto any_code) {
      using Code = decltype(any_code);
      const auto again = [&](uint32_t code) { return Code::code(Code::value(code) * factor); };
      if constexpr (Code::kBits == 8) {
        group.for_each(page_size * stream.dim, [&](int64_t i) {
          const int64_t token = divide(i, stream.dim), element = i - token * stream.dim;
          std::byte* const at = codes + token * stream.geometry.token_stride + element * stride;
          *at = static_cast<std::byte>(again(static_cast<uint32_t>(*at)));
        });
      } else {
        const int64_t pairs = stream.dim / 2;
        group.for_each(page_size * pairs, [&](int64_t i) {
          const int64_t token = divide(i, pairs), element = i - token * pairs;
          std::byte* const at = codes + token * stream.geometry.token_stride + element;
          const auto both = static_cast<uint32_t>(*at);
          *at = static_cast<std::byte>(again(both & 15u) | again(both >> 4) << 4);
        });
      }
    });
  }
};

}  // namespace pagedkv::cuda
