#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "checks.h"
#include "row_geometry.h"

/// Where the rows of a token lie in a pool. A layout is one line of a table: the roles of a pool's
/// axes, and how keys and values share it. Everything else is arithmetic on the pool's shape.
namespace pagedkv {

/// What an axis of a pool counts. Neighbouring axes of one role count together, the later one
/// faster: `[heads / pack, pack]` is `heads`.
enum class AxisRole : uint8_t { kPages, kTokens, kHeads, kDim };

/// How keys and values share memory.
enum class Sharing : uint8_t {
  kSeparate,     // a pool each
  kInterleaved,  // one pool; along its heads K0 V0 K1 V1 ...
  kSideBySide,   // one pool; each head has its key and then its value along its elements
  kLatent,       // one pool with one row a token, of which attention takes both
};

struct KvLayout {
  std::string_view name;
  Sharing sharing;
  bool pads;  // a pool may have more heads and elements than the rows: they are written as zeros
  uint8_t rank;
  std::array<AxisRole, 5> roles;  // of one layer's pool; `rank` of them

  /// Arrays that hold keys and values.
  size_t num_pools() const { return sharing == Sharing::kSeparate ? 2 : 1; }
  /// Arrays of new rows that a write takes.
  size_t num_streams() const { return sharing == Sharing::kLatent ? 1 : 2; }
  /// The pool of a stream, 0 for keys and 1 for values.
  size_t pool_of(size_t stream) const { return sharing == Sharing::kSeparate ? stream : 0; }
  /// Rows have a heads axis: `[tokens, heads, dim]`, else `[tokens, dim]`.
  bool has_heads() const { return sharing != Sharing::kLatent; }
};

/// Finds a layout by its public name; null if there is none.
const KvLayout* find_layout(std::string_view name);

/// Sizes and strides of a pool, by role. Strides are in elements.
struct PoolGeometry {
  Shape batch;
  int64_t num_layers = 0;
  int64_t layer_elements = 0;
  std::array<int64_t, 4> sizes{};    // by AxisRole
  std::array<int64_t, 4> strides{};  // by AxisRole
  int64_t element_bits = 0;

  int64_t size(AxisRole role) const { return sizes[static_cast<size_t>(role)]; }
  int64_t stride(AxisRole role) const { return strides[static_cast<size_t>(role)]; }
  int64_t num_slots() const { return size(AxisRole::kPages) * size(AxisRole::kTokens); }

  /// First byte of a layer. Requires both arguments in range.
  int64_t layer_offset(int64_t batch_index, int64_t layer) const {
    return (batch_index * num_layers + layer) * layer_elements * element_bits / 8;
  }
};

/// Reads the geometry of `pool`. Fails if the rank is not the layout's, a size does not fit in
/// `int64_t`, slots do not fit in `int32_t`, or a layer is not a whole number of bytes.
ffi::ErrorOr<PoolGeometry> pool_geometry(std::string_view operation, std::string_view name,
                                         const ffi::AnyBuffer& pool, const KvLayout& layout,
                                         size_t batch_rank, bool layered);

/// The geometry of rows of `num_heads` heads of `dim` elements in the given stream, 0 for keys and
/// 1 for values. Fails if the pool has not room for exactly these, or, in a layout that pads, for
/// at least these; and if a run is not a whole number of bytes. Heads that lie back to back are one
/// run, unless a run is wanted `by_head`.
ffi::ErrorOr<RowGeometry> row_geometry(std::string_view operation, std::string_view rows_name,
                                       const PoolGeometry& pool, const KvLayout& layout,
                                       size_t stream, int64_t num_heads, int64_t dim,
                                       bool by_head = false);

/// Bytes of a token in a pool that has more room than `num_streams` rows of `num_heads` heads of
/// `dim` elements take; 0 if these fill it. Such bytes are contiguous.
int64_t padded_token_bytes(const PoolGeometry& pool, const KvLayout& layout, int64_t num_heads,
                           int64_t dim);

}  // namespace pagedkv
