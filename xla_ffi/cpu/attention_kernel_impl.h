#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "attention_block.h"
#include "attention_kernel.h"
#include "attention_rows.h"
#include "attention_vectors.h"

/// The steps of a block: the last part of the attention kernel's text, as attention_vectors.h.
namespace pagedkv {
namespace {

// The row of the scratch that holds query head `head` of the block, in token `token`. Rows of a kv
// head lie together, and go from token to token.
PAGEDKV_INLINE int64_t row_index(const AttentionLayer& layer, const AttentionBlock& block,
                                 int64_t token, int64_t head) {
  const int64_t kv_head = head / layer.group_size, member = head % layer.group_size;
  return (kv_head * block.num_tokens + token) * layer.group_size + member;
}

PAGEDKV_INLINE RowFormat query_format(FloatType type) {
  switch (type) {
    case FloatType::kF32:
      return RowFormat::kF32;
    case FloatType::kF16:
      return RowFormat::kF16;
    default:
      return RowFormat::kBf16;
  }
}

PAGEDKV_TARGET void load_queries(const AttentionLayer& layer, const AttentionBlock& block,
                                 const AttentionScratch& scratch) {
  const int64_t dim = layer.keys.dim, bytes = float_bytes(layer.query_type);
  for (int64_t token = 0; token < block.num_tokens; ++token) {
    const std::byte* heads = block.query + token * layer.num_heads() * dim * bytes;
    for (int64_t head = 0; head < block.num_kv_heads * layer.group_size; ++head) {
      float* to = scratch.query + row_index(layer, block, token, head) * scratch.key_stride;
      widen(query_format(layer.query_type), heads + head * dim * bytes, dim, to);
      std::fill(to + dim, to + scratch.key_stride, 0.0f);
      for (int64_t i = 0; i < scratch.key_stride; i += kWidth) {
        store(to + i, load(to + i) * layer.scale);
      }
    }
  }
}

// The tokens [position, end), tile by tile.
PAGEDKV_TARGET void attend_tokens(const Work& work, int64_t position, int64_t end, bool in_window) {
  if (position >= end) return;
  Tile tiles[2];
  int at = 0;
  fill(tiles[at], work.layer, work.block, position, end);
  while (position < end) {
    const Tile& tile = tiles[at];
    Tile& next = tiles[1 - at];
    position = tile.start + tile.range.end;
    if (position < end) {
      fill(next, work.layer, work.block, position, end);
    } else {
      clear(next);
    }
    attend_tile(work, tile, next, in_window);
    at = 1 - at;
  }
}

PAGEDKV_TARGET void attend(const AttentionLayer& layer, const AttentionBlock& block, int64_t part,
                           const AttentionScratch& scratch, const AttentionState& state) {
  const Work work{.layer = layer,
                  .block = block,
                  .scratch = scratch,
                  .state = state,
                  .rows_per_head = block.num_tokens * layer.group_size,
                  .key_bytes = row_bytes(layer.keys),
                  .value_bytes = row_bytes(layer.values)};
  const int64_t num_rows = work.rows_per_head * block.num_kv_heads;
  std::fill_n(state.accumulator, num_rows * state.value_stride, 0.0f);
  std::fill_n(state.maximum, num_rows, std::numeric_limits<float>::lowest());
  std::fill_n(state.total, num_rows, 0.0f);

  const int64_t begin = part * kPartTokens;
  const int64_t end = std::min(begin + kPartTokens, block.end_position());
  const AttentionMask& mask = layer.mask;
  attend_tokens(work, begin, std::min(mask.num_sink_tokens, end), false);
  attend_tokens(work,
                std::max({begin, mask.num_sink_tokens, mask.first_seen(block.first_position)}), end,
                true);
}

// A row that has seen nothing has a total of 0, and no other has.
PAGEDKV_TARGET void merge(const AttentionState& state, const AttentionState& later,
                          int64_t num_rows) {
  const int64_t stride = state.value_stride;
  for (int64_t row = 0; row < num_rows; ++row) {
    float* accumulator = state.accumulator + row * stride;
    const float* added = later.accumulator + row * stride;
    if (later.total[row] == 0.0f) continue;
    if (state.total[row] == 0.0f) {
      std::copy_n(added, stride, accumulator);
      state.maximum[row] = later.maximum[row];
      state.total[row] = later.total[row];
      continue;
    }
    const float maximum = std::max(state.maximum[row], later.maximum[row]);
    const Floats kept = exponential(broadcast(state.maximum[row] - maximum));
    const Floats taken = exponential(broadcast(later.maximum[row] - maximum));
    for (int64_t i = 0; i < stride; i += kWidth) {
      store(accumulator + i, load(accumulator + i) * kept + load(added + i) * taken);
    }
    state.total[row] = state.total[row] * kept[0] + later.total[row] * taken[0];
    state.maximum[row] = maximum;
  }
}

// A sink takes part in the softmax, and gives nothing.
PAGEDKV_INLINE void add_sink(float sink, float maximum, float& total) {
  const float highest = sink > maximum ? sink : maximum;
  const Floats kept = exponential(broadcast(maximum - highest));
  const Floats taken = exponential(broadcast(sink - highest));
  // Relative to the old maximum, as the accumulator is, unless that would be beyond float32.
  total = (total * kept[0] + taken[0]) / kept[0];
}

PAGEDKV_TARGET void finish(const AttentionLayer& layer, const AttentionBlock& block,
                           const AttentionState& state) {
  const int64_t dim = layer.values.dim, bytes = float_bytes(layer.query_type);
  for (int64_t token = 0; token < block.num_tokens; ++token) {
    std::byte* heads = block.output + token * layer.num_heads() * dim * bytes;
    for (int64_t head = 0; head < block.num_kv_heads * layer.group_size; ++head) {
      const int64_t row = row_index(layer, block, token, head);
      float total = state.total[row];
      const bool has_seen = total != 0.0f;
      if (has_seen && layer.sinks != nullptr) {
        add_sink(layer.sinks[block.kv_head * layer.group_size + head], state.maximum[row], total);
      }
      const float* from = state.accumulator + row * state.value_stride;
      const float factor = has_seen ? 1.0f / total : 0.0f;
      std::byte* to = heads + head * dim * bytes;
      switch (layer.query_type) {
        case FloatType::kF32:
          for (int64_t i = 0; i < dim; ++i) Float32::store(to + 4 * i, from[i] * factor);
          break;
        case FloatType::kF16:
          for (int64_t i = 0; i < dim; ++i) Float16::store(to + 2 * i, from[i] * factor);
          break;
        case FloatType::kBf16:
          for (int64_t i = 0; i < dim; ++i) Bfloat16::store(to + 2 * i, from[i] * factor);
          break;
      }
    }
  }
}

constexpr AttentionKernel kKernel{load_queries, attend, merge, finish};

}  // namespace
}  // namespace pagedkv
