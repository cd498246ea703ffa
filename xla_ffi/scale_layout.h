#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "checks.h"
#include "kv_layout.h"

/// Where the scales of a quantised pool lie: float32, on the axes of the pool that they do not sum
/// over.
namespace pagedkv {

/// What shares a scale, always within one head of keys or of values.
enum class Granularity : uint8_t {
  kStatic,  // a whole layer; the caller's, never written
  kPage,    // the tokens of a page
  kToken,   // one token
};

/// Strides are in scales.
struct ScaleGeometry {
  Shape batch;
  Granularity granularity;
  int64_t num_layers;
  int64_t layer_size;
  int64_t page_stride;
  int64_t token_stride;
  int64_t head_stride;
  std::array<int64_t, 2> first;  // by stream

  int64_t layer_offset(int64_t batch_index, int64_t layer) const {
    return (batch_index * num_layers + layer) * layer_size;
  }
  int64_t offset(size_t stream, int64_t page, int64_t token, int64_t head) const {
    return first[stream] + page * page_stride + token * token_stride + head * head_stride;
  }
};

/// Reads the geometry of the scales of a pool, whose shape says what shares one. Fails unless they
/// are float32 and have one of the shapes that go with the pool's, behind any batch axes.
ffi::ErrorOr<ScaleGeometry> scale_geometry(std::string_view operation, std::string_view name,
                                           const ffi::AnyBuffer& scales, const ffi::AnyBuffer& pool,
                                           const KvLayout& layout, size_t batch_rank, bool layered);

}  // namespace pagedkv
