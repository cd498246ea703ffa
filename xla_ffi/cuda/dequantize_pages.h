#pragma once

#include <cstddef>
#include <cstdint>

#include "batch_map.h"
#include "host_device.h"
#include "number_codes.h"
#include "page_ids.h"
#include "quantize_rows.h"
#include "units.h"

namespace pagedkv::cuda {

/// Reads pages of codes as numbers. Its items, in any order and at the same time: first one for
/// each element of the batch, which counts its dropped ids; then `num_runs` for each id.
struct DequantizePages {
  /// An axis of a page but the last.
  struct Axis {
    int64_t size;
    int64_t codes;   // from one index to the next
    int64_t scales;  // likewise
  };
  static constexpr int32_t kMaxAxes = 5;

  const std::byte* pool;
  const float* scales;
  std::byte* rows;
  const int32_t* ids;
  const int32_t* layers;
  int32_t* num_dropped;
  int64_t num_batches;
  int64_t num_ids;  // of an element of the batch
  int64_t num_layers;
  int64_t num_pages;
  int64_t layer_bytes;
  int64_t layer_scales;
  int64_t page_bytes;   // between two pages of a layer
  int64_t page_scales;  // likewise
  FloatType float_type;
  CodeType code_type;
  int32_t num_axes;
  Axis axes[kMaxAxes];  // of a page, the outermost first
  int64_t num_runs;     // of a page: the product of their sizes
  int64_t run_size;     // codes that lie back to back, in the pool and in the result
  int64_t run_scales;   // from the scale of one code of a run to the next one's
  BatchMap pool_of, scales_of, ids_of, layer_of;  // by element of the batch

  int64_t num_items() const { return num_batches * (1 + (run_size == 0 ? 0 : num_ids * num_runs)); }

  template <typename Group>
  PAGEDKV_DEVICE void operator()(const Group& group, int64_t item) const {
    if (item < num_batches) {
      return write_num_dropped(group, ids + ids_of(item) * num_ids, num_ids, pages_of(item),
                               num_dropped + item);
    }
    item -= num_batches;
    const int64_t row = divide(item, num_runs), run = item - row * num_runs;
    const int64_t batch = divide(row, num_ids), index = row - batch * num_ids;
    const int32_t id = ids[ids_of(batch) * num_ids + index];
    std::byte* const to = rows + item * run_size * float_bytes(float_type);
    if (!in_range(id, pages_of(batch))) {
      return group.for_each(run_size * float_bytes(float_type),
                            [&](int64_t i) { to[i] = std::byte{0}; });
    }
    int64_t rest = run, code = 0, scale = 0;
    for (int32_t axis = num_axes; axis-- > 0;) {
      const int64_t next = divide(rest, axes[axis].size), at = rest - next * axes[axis].size;
      code += at * axes[axis].codes;
      scale += at * axes[axis].scales;
      rest = next;
    }
    const int32_t layer = layers[layer_of(batch)];
    dequantize(
        group, pool + (pool_of(batch) * num_layers + layer) * layer_bytes + id * page_bytes, code,
        scales + (scales_of(batch) * num_layers + layer) * layer_scales + id * page_scales + scale,
        to);
  }

 private:
  // A layer that does not exist has no pages.
  PAGEDKV_DEVICE int64_t pages_of(int64_t batch) const {
    return in_range(layers[layer_of(batch)], num_layers) ? num_pages : 0;
  }

  template <typename Group>
  PAGEDKV_DEVICE void dequantize(const Group& group, const std::byte* page, int64_t code,
                                 const float* scale, std::byte* to) const {
    with_number(float_type, [&](auto any_float) {
      using Float = decltype(any_float);
      with_code(code_type, [&](auto any_code) {
        using Code = decltype(any_code);
        if constexpr (Code::kBits == 8) {
          group.for_each(run_size, [&](int64_t i) {
            const float value = Code::value(static_cast<uint32_t>(page[code + i]));
            Float::store(to + i * Float::kBytes, value * scale[i * run_scales]);
          });
        } else {
          // A run is whole bytes and has one scale: elements of half a byte are never apart.
          group.for_each(run_size / 2, [&](int64_t i) {
            const auto both = static_cast<uint32_t>(page[code / 2 + i]);
            Float::store(to + 2 * i * Float::kBytes, Code::value(both & 15u) * *scale);
            Float::store(to + (2 * i + 1) * Float::kBytes, Code::value(both >> 4) * *scale);
          });
        }
      });
    });
  }
};

}  // namespace pagedkv::cuda
