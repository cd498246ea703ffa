#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "checks.h"
#include "inline_vector.h"
#include "kv_layout.h"

/// What every write of K/V rows asks of its operands, whatever becomes of the rows on the way.
namespace pagedkv {

/// A write whose operands fit together.
struct CheckedWrite {
  InlineVector<PoolGeometry, 2> pools;
  InlineVector<RowGeometry, 2> rows;  // by stream
  int64_t token_bytes = 0;            // of the rows of one token in the pools
  int64_t padded_token_bytes = 0;     // of a token whose rows do not fill it, else 0
  bool is_plain = false;  // two streams of single runs at the beginnings of tokens back to back
};

/// Reads pools, the results that alias them, and new rows: their dtypes and shapes. Looks at no id,
/// so ids may be in the memory of a device.
ffi::ErrorOr<CheckedWrite> check_write(
    std::string_view operation, const ffi::AnyBuffer& slot_mapping, const ffi::AnyBuffer& layer,
    const ffi::AnyBuffer& num_dropped, const KvLayout& layout,
    std::span<const ffi::AnyBuffer> pools, std::span<const ffi::AnyBuffer> new_pools,
    std::span<const ffi::AnyBuffer> rows, bool layered, bool by_head);

/// Fails unless new rows have the dtypes of their pools.
ffi::Error check_row_dtypes(std::string_view operation, const KvLayout& layout,
                            std::span<const ffi::AnyBuffer> pools,
                            std::span<const ffi::AnyBuffer> rows);

}  // namespace pagedkv
