#pragma once

#include <cstddef>
#include <cstdint>

#include "batch_map.h"
#include "host_device.h"
#include "page_ids.h"
#include "units.h"

namespace pagedkv::cuda {

/// A pool as the ops on whole pages see it: `[batch, layers, outer, pages, run]`, in bytes.
struct PageRuns {
  std::byte* pool;
  int64_t num_layers;
  int64_t num_outer;
  int64_t num_pages;
  int64_t run_bytes;
  int64_t unit;  // bytes; divides the run and what is on the other side of the copy

  PAGEDKV_HOST_DEVICE int64_t run_units() const { return run_bytes / unit; }
  PAGEDKV_HOST_DEVICE int64_t page_units() const { return num_outer * run_units(); }
  PAGEDKV_HOST_DEVICE int64_t layer_bytes() const { return num_outer * num_pages * run_bytes; }
  /// First byte of page 0 of a layer.
  PAGEDKV_DEVICE std::byte* layer(int64_t batch, int64_t layer) const {
    return pool + (batch * num_layers + layer) * layer_bytes();
  }
  /// Byte of a unit of page 0, from its layer's first.
  PAGEDKV_DEVICE int64_t offset(int64_t page_unit) const {
    const int64_t units = run_bytes / unit;
    const int64_t outer = page_unit < units ? 0 : divide(page_unit, units);
    return outer * num_pages * run_bytes + (page_unit - outer * units) * unit;
  }
};

/// Copies pages to rows, or rows to pages. Its items, in any order and at the same time: first, if
/// it counts, one for each element of the batch, for its dropped ids; then `num_parts` for each id.
///
/// To rows, an id out of range gives zeros. To pages, of equal ids the last row wins: each looks
/// for its id in the later ones.
template <bool kToRows>
struct MovePages {
  /// Bytes of a page that an item copies.
  static constexpr int64_t kPartBytes = 4096;

  PageRuns pages;
  std::byte* rows;
  const int32_t* ids;
  const int32_t* layers;  // null for layer 0
  int32_t* num_dropped;   // null not to count
  int64_t num_batches;
  int64_t num_ids;     // of an element of the batch
  int64_t row_bytes;   // of all that lies between two rows
  int64_t row_offset;  // of this pool's page in a row
  int64_t num_parts;
  BatchMap pool_of, ids_of, layer_of;  // by element of the batch

  int64_t num_counts() const { return num_dropped == nullptr ? 0 : num_batches; }
  int64_t num_items() const {
    return num_counts() + (pages.page_units() == 0 ? 0 : num_batches * num_ids * num_parts);
  }

  template <typename Group>
  PAGEDKV_DEVICE void operator()(const Group& group, int64_t item) const {
    if (num_dropped != nullptr) {
      if (item < num_batches) {
        return write_num_dropped(group, ids + ids_of(item) * num_ids, num_ids, pages_of(item),
                                 num_dropped + item);
      }
      item -= num_batches;
    }
    const int64_t row = divide(item, num_parts), part = item - row * num_parts;
    const int64_t batch = divide(row, num_ids), index = row - batch * num_ids;
    const int32_t* const batch_ids = ids + ids_of(batch) * num_ids;
    const int32_t id = batch_ids[index];
    const bool exists = in_range(id, pages_of(batch));
    if constexpr (!kToRows) {
      if (!exists || is_overwritten(group, batch_ids, num_ids, index)) return;
    }
    std::byte* const page =
        exists ? pages.layer(pool_of(batch), layer_id(batch)) + id * pages.run_bytes : nullptr;
    copy_part(group, page, rows + row * row_bytes + row_offset, part);
  }

 private:
  PAGEDKV_DEVICE int32_t layer_id(int64_t batch) const {
    return layers == nullptr ? 0 : layers[layer_of(batch)];
  }
  // A layer that does not exist has no pages.
  PAGEDKV_DEVICE int64_t pages_of(int64_t batch) const {
    return in_range(layer_id(batch), pages.num_layers) ? pages.num_pages : 0;
  }

  template <typename Group>
  PAGEDKV_DEVICE void copy_part(const Group& group, std::byte* page, std::byte* row,
                                int64_t part) const {
    const int64_t part_units = divide(pages.page_units() + num_parts - 1, num_parts);
    const int64_t first = part * part_units, rest = pages.page_units() - first;
    with_unit(pages.unit, [&](auto any) {
      using Unit = decltype(any);
      group.for_each(rest < part_units ? rest : part_units, [&](int64_t i) {
        std::byte* const in_row = row + (first + i) * static_cast<int64_t>(sizeof(Unit));
        if (page == nullptr) return store_unit<Unit>(in_row, Unit{});
        std::byte* const in_page = page + pages.offset(first + i);
        if constexpr (kToRows) {
          store_unit<Unit>(in_row, load_constant<Unit>(in_page));
        } else {
          store_unit<Unit>(in_page, load_constant<Unit>(in_row));
        }
      });
    });
  }
};

}  // namespace pagedkv::cuda
