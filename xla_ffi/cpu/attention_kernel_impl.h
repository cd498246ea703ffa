#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "attention_kernel.h"
#include "attention_rows.h"
#include "attention_tiles.h"
#include "attention_vectors.h"

/// The steps of a block: the last part of the attention kernel's text, as attention_vectors.h.
namespace pagedkv {
namespace {

constexpr int kValueBlock = 16;  // tokens whose values are in hand at a time,
constexpr int kFewRows = 8;      // unless a head has more rows than this
constexpr int kTokensAhead = 16;  // of the one that is read, whose memory is asked for

static_assert(kTileTokens % kValueBlock == 0 && kTokensAhead <= kTileTokens);

// A block in the hands of a worker.
struct Work {
  const AttentionLayer& layer;
  const AttentionBlock& block;
  const AttentionScratch& scratch;
  const AttentionState& state;
  int64_t rows_per_head;
  int64_t key_bytes, value_bytes;  // of a row
};

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

// The place of a position, or the nearest that belongs to the tile.
PAGEDKV_INLINE int32_t place_in(const Tile& tile, int64_t position) {
  return static_cast<int32_t>(
      std::clamp<int64_t>(position - tile.start, tile.range.begin, tile.range.end));
}

// What each row of a head sees of the tile. Returns what any of them sees.
PAGEDKV_TARGET TileRange find_visible(const Work& work, const Tile& tile, bool in_window) {
  const AttentionBlock& block = work.block;
  const int64_t group_size = work.layer.group_size;
  TileRange* visible = work.scratch.visible;
  for (int64_t token = 0; token < block.num_tokens; ++token, visible += group_size) {
    const int64_t position = block.first_position + token;
    const int64_t first = in_window ? work.layer.mask.first_seen(position) : 0;
    std::fill_n(visible, group_size,
                TileRange{place_in(tile, first), place_in(tile, position + 1)});
  }
  return {work.scratch.visible[0].begin, work.scratch.visible[work.rows_per_head - 1].end};
}

// The places of a tile and of the one after it, by the distance from the first one's.
struct Ahead {
  const Tile& tile;
  const Tile& next;

  PAGEDKV_INLINE const std::byte* key(int t) const {
    return t < kTileTokens ? tile.keys[t] : next.keys[t - kTileTokens];
  }
  PAGEDKV_INLINE const std::byte* value(int t) const {
    if (key(t) == nullptr) return nullptr;
    return t < kTileTokens ? tile.values[t] : next.values[t - kTileTokens];
  }
};

// Where the arithmetic finds a row: in the pool, or as floats in `copy`. Zeros, which are the same in
// every format, for a token that is not there.
PAGEDKV_INLINE const std::byte* find_row(const Work& work, const PagedRows& rows,
                                         RowFormat read_as, const std::byte* row, int64_t head,
                                         float* copy) {
  if (row == nullptr) return reinterpret_cast<const std::byte*>(work.scratch.zeros);
  row += head * rows.head_stride;
  if (read_as == rows.format && is_whole(rows)) return row;
  copy_row(rows, row, work.scratch.raw, copy);
  return reinterpret_cast<const std::byte*>(copy);
}

// What the arithmetic reads: with few rows a head's elements as they are, and with many, or where
// they lie apart, a copy as floats. Both are the same numbers.
PAGEDKV_INLINE RowFormat read_as(const Work& work, const PagedRows& rows) {
  return work.rows_per_head <= kFewRows && is_whole(rows) ? rows.format : RowFormat::kF32;
}

// The scores of all rows. A few tokens with all their heads and then the next ones: so memory is read
// nearly in order. `keys` become the rows of the last head.
template <typename Format>
PAGEDKV_TARGET void score_tile(const Work& work, const Tile& tile, TileRange any, RowFormat format,
                               const Ahead& ahead, const std::byte** keys) {
  const AttentionScratch& scratch = work.scratch;
  const PagedRows& rows = work.layer.keys;
  for (int token = any.begin - any.begin % kTokenBlock; token < any.end; token += kTokenBlock) {
    for (int64_t head = 0; head < work.block.num_kv_heads; ++head) {
      for (int t = token; t < token + kTokenBlock; ++t) {
        const bool is_seen = any.begin <= t && t < any.end;
        keys[t] = find_row(work, rows, format, is_seen ? tile.keys[t] : nullptr, head,
                           scratch.rows + t * scratch.row_stride);
        prefetch(rows, ahead.key(t + kTokensAhead), head, work.key_bytes);
      }
      const int64_t first_row = head * work.rows_per_head;
      score_rows<Format>(keys + token, token, scratch.visible,
                         scratch.query + first_row * scratch.key_stride, scratch.key_stride,
                         work.rows_per_head, scratch.weights + first_row * kTileTokens);
    }
  }
}

// The scales of a head's rows, by place; 1 for a token that is not there.
PAGEDKV_INLINE const float* find_scales(const PagedRows& rows, const float* const* of_tile,
                                        uint32_t exists, int64_t head, float* scales) {
  if (rows.scales == nullptr) return nullptr;
  for (int t = 0; t < kTileTokens; ++t) {
    scales[t] = (exists >> t & 1u) != 0 ? of_tile[t][head * rows.scale_head_stride] : 1.0f;
  }
  return scales;
}

PAGEDKV_TARGET void soften_tile(const Work& work, const Tile& tile) {
  const AttentionScratch& scratch = work.scratch;
  const AttentionState& state = work.state;
  float of_keys[kTileTokens], of_values[kTileTokens];
  for (int64_t head = 0, row = 0; head < work.block.num_kv_heads; ++head) {
    const float* key_scales =
        find_scales(work.layer.keys, tile.key_scales, tile.exists, head, of_keys);
    const float* value_scales =
        find_scales(work.layer.values, tile.value_scales, tile.exists, head, of_values);
    for (int64_t i = 0; i < work.rows_per_head; ++i, ++row) {
      if (scratch.visible[i].empty()) continue;
      soften(scratch.weights + row * kTileTokens, scratch.visible[i], tile.exists, key_scales,
             value_scales, work.layer.soft_cap, state.maximum[row], state.total[row],
             state.accumulator + row * state.value_stride, state.value_stride);
    }
  }
}

// Adds the weighted values to all rows, again with a few tokens at a time, but more of them where
// there are many rows: the sums of these come from memory for every few tokens.
template <typename Format>
PAGEDKV_TARGET void accumulate_tile(const Work& work, const Tile& tile, TileRange any,
                                    RowFormat format, const Ahead& ahead) {
  const AttentionScratch& scratch = work.scratch;
  const AttentionState& state = work.state;
  const PagedRows& rows = work.layer.values;
  const int block = work.rows_per_head > kFewRows ? kTileTokens : kValueBlock;
  const std::byte* values[kTileTokens];
  for (int token = any.begin - any.begin % block; token < any.end; token += block) {
    const TileRange tokens{std::max(token, any.begin), std::min(token + block, any.end)};
    for (int64_t head = 0; head < work.block.num_kv_heads; ++head) {
      for (int t = tokens.begin; t < tokens.end; ++t) {
        values[t] = find_row(work, rows, format, tile.keys[t] == nullptr ? nullptr : tile.values[t],
                             head, scratch.rows + t * scratch.row_stride);
        prefetch(rows, ahead.value(t + kTokensAhead), head, work.value_bytes);
      }
      const int64_t first_row = head * work.rows_per_head;
      accumulate<Format>(values, scratch.visible, tokens, scratch.weights + first_row * kTileTokens,
                         work.rows_per_head, state.accumulator + first_row * state.value_stride,
                         state.value_stride);
    }
  }
}

// Calls `function<Format>(...)` for a format.
#define PAGEDKV_FOR_FORMAT(format, function, ...)  \
  switch (format) {                                \
    case RowFormat::kF32:                          \
      function<Float32>(__VA_ARGS__);              \
      break;                                       \
    case RowFormat::kF16:                          \
      function<Float16>(__VA_ARGS__);              \
      break;                                       \
    case RowFormat::kBf16:                         \
      function<Bfloat16>(__VA_ARGS__);             \
      break;                                       \
    case RowFormat::kInt8:                         \
      function<Int8>(__VA_ARGS__);                 \
      break;                                       \
    case RowFormat::kInt4:                         \
      function<Int4>(__VA_ARGS__);                 \
      break;                                       \
    case RowFormat::kE4m3:                         \
      function<E4m3>(__VA_ARGS__);                 \
      break;                                       \
    case RowFormat::kE5m2:                         \
      function<E5m2>(__VA_ARGS__);                 \
      break;                                       \
  }

PAGEDKV_TARGET void attend_tile(const Work& work, const Tile& tile, const Tile& next,
                                bool in_window) {
  const TileRange any = find_visible(work, tile, in_window);
  if (any.empty() || (tile.exists & places(any)) == 0) return;
  const AttentionScratch& scratch = work.scratch;
  const AttentionState& state = work.state;
  const Ahead ahead{tile, next};
  const std::byte* keys[kTileTokens];
  const RowFormat key_format = read_as(work, work.layer.keys);
  PAGEDKV_FOR_FORMAT(key_format, score_tile, work, tile, any, key_format, ahead, keys)
  soften_tile(work, tile);
  if (work.layer.values_are_keys) {
    PAGEDKV_FOR_FORMAT(key_format, accumulate, keys, scratch.visible, any, scratch.weights,
                       work.rows_per_head, state.accumulator, state.value_stride)
    return;
  }
  const RowFormat format = read_as(work, work.layer.values);
  PAGEDKV_FOR_FORMAT(format, accumulate_tile, work, tile, any, format, ahead)
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
      std::fill_n(next.keys, kTileTokens, nullptr);
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
