#pragma once

#include <cstddef>
#include <cstdint>

#include "host_device.h"
#include "page_ids.h"
#include "row_geometry.h"
#include "units.h"

namespace pagedkv::cuda {

/// Writes new rows of K/V to the slots of one layer of the pools. Its items, in any order and at
/// the same time: first one for each element of the batch, which counts its dropped slots; then
/// `num_parts` for each row.
///
/// Of equal slots the last row wins: each row looks for its slot in the later ones.
struct WriteRows {
  /// Bytes of a row of one stream that an item copies: a few loads in flight for each thread.
  static constexpr int64_t kPartBytes = 2048;

  /// Keys or values.
  struct Stream {
    std::byte* pool;
    const std::byte* rows;
    int64_t layer_bytes;
    RowGeometry geometry;
    int64_t unit;         // bytes
    int64_t unit_stride;  // in the pool
    int64_t run_units;
    int64_t row_units;
  };

  const int32_t* slots;
  const int32_t* layers;
  int32_t* num_dropped;
  int64_t num_batches;
  int64_t num_rows;  // of an element of the batch
  int64_t num_layers;
  int64_t num_slots;
  int64_t num_parts;
  int64_t padded_token_bytes;  // cleared before the rows of a token come; 0 if they fill it
  int64_t padded_unit;
  int32_t num_streams;
  Stream streams[2];

  int64_t num_items() const { return num_batches * (1 + num_rows * num_parts); }

  template <typename Group>
  PAGEDKV_DEVICE void operator()(const Group& group, int64_t item) const {
    if (item < num_batches) {
      return write_num_dropped(group, slots + item * num_rows, num_rows, slots_of(item),
                               num_dropped + item);
    }
    item -= num_batches;
    const int64_t in_batches = divide(item, num_parts), part = item - in_batches * num_parts;
    const int64_t batch = divide(in_batches, num_rows), row = in_batches - batch * num_rows;
    const int32_t slot = slots[in_batches];
    if (!in_range(slot, slots_of(batch))) return;
    if (is_overwritten(group, slots + batch * num_rows, num_rows, row)) return;
    const int64_t layer = batch * num_layers + layers[batch];
    if (padded_token_bytes != 0) {
      const Stream& keys = streams[0];
      clear(group, keys.pool + layer * keys.layer_bytes + keys.geometry.offset(slot),
            padded_token_bytes, padded_unit);
      group.sync();
    }
    for (int32_t i = 0; i < num_streams; ++i) {
      const Stream& stream = streams[i];
      copy_row(group, stream,
               stream.pool + layer * stream.layer_bytes + stream.geometry.offset(slot),
               stream.rows + in_batches * stream.geometry.row_bytes(), part);
    }
  }

 private:
  // A layer that does not exist has no slots.
  PAGEDKV_DEVICE int64_t slots_of(int64_t batch) const {
    return in_range(layers[batch], num_layers) ? num_slots : 0;
  }

  template <typename Group>
  PAGEDKV_DEVICE void copy_row(const Group& group, const Stream& stream, std::byte* to,
                               const std::byte* from, int64_t part) const {
    const int64_t part_units = divide(stream.row_units + num_parts - 1, num_parts);
    const int64_t first = part * part_units;
    const int64_t rest = stream.row_units - first;
    with_unit(stream.unit, [&](auto any) {
      using Unit = decltype(any);
      group.for_each(rest < part_units ? rest : part_units, [&](int64_t i) {
        const int64_t unit = first + i;
        const int64_t run = unit < stream.run_units ? 0 : divide(unit, stream.run_units);
        store_unit<Unit>(to + run * stream.geometry.run_stride +
                             (unit - run * stream.run_units) * stream.unit_stride,
                         load_constant<Unit>(from + unit * static_cast<int64_t>(sizeof(Unit))));
      });
    });
  }
};

}  // namespace pagedkv::cuda
