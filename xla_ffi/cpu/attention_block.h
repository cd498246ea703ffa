#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "attention_kernel.h"
#include "attention_rows.h"
#include "attention_tiles.h"
#include "attention_vectors.h"

/// What a block does with a tile of its context, all heads of it. Part of the attention kernel's
/// text, as attention_vectors.h.
namespace pagedkv {
namespace {

constexpr int kValueBlock = 16;   // tokens whose values are in hand at a time,
constexpr int kFewRows = 8;       // unless a head has more rows than this
constexpr int kTokensAhead = 16;  // of the one that is read, whose memory is asked for

static_assert(kTileTokens % kValueBlock == 0 && kTokensAhead <= kTileTokens);

// A block in the hands of a worker.
struct Work {
  const AttentionLayer& layer;
  const AttentionBlock& block;
  const AttentionScratch& scratch;
  const AttentionState& state;
  int64_t rows_per_head;
  int64_t key_bytes, value_bytes;  // of a row, to ask for before it is read
};

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

// The rows of a tile, and by the same places those kTokensAhead tokens further on.
struct TileRows {
  const std::byte* const* rows;
  const std::byte* ahead[kTileTokens];

  PAGEDKV_INLINE TileRows(const std::byte* const* tile, const std::byte* const* next) : rows(tile) {
    std::copy_n(tile + kTokensAhead, kTileTokens - kTokensAhead, ahead);
    std::copy_n(next, kTokensAhead, ahead + kTileTokens - kTokensAhead);
  }
};

// Where the arithmetic finds a row: in the pool, or as floats in `copy`. Zeros, which are the same
// in every format, for a token that is not there.
PAGEDKV_INLINE const std::byte* find_row(const Work& work, const PagedRows& rows, bool is_in_place,
                                         const std::byte* row, int64_t offset, float* copy) {
  if (row == nullptr) return reinterpret_cast<const std::byte*>(work.scratch.zeros);
  row += offset;
  if (is_in_place) return row;
  copy_row(rows, row, work.scratch.raw, copy);
  return reinterpret_cast<const std::byte*>(copy);
}

// What the arithmetic reads: with few rows a head's elements as they are, and with many, or where
// they lie apart, a copy as floats. Both are the same numbers.
PAGEDKV_INLINE RowFormat read_as(const Work& work, const PagedRows& rows) {
  const bool is_in_place = is_direct(rows.format) && is_whole(rows);
  return work.rows_per_head <= kFewRows && is_in_place ? rows.format : RowFormat::kF32;
}

// The scores of all rows. A few tokens with all their heads and then the next ones: so memory is
// read nearly in order. `keys` become the rows of the last head.
template <typename Format>
PAGEDKV_TARGET void score_tile(const Work& work, TileRange any, RowFormat format,
                               const TileRows& tile_rows, const std::byte** keys) {
  const AttentionScratch& scratch = work.scratch;
  const PagedRows& rows = work.layer.keys;
  const bool is_in_place = format == rows.format && is_whole(rows);
  for (int token = any.begin - any.begin % kTokenBlock; token < any.end; token += kTokenBlock) {
    for (int64_t head = 0; head < work.block.num_kv_heads; ++head) {
      const int64_t offset = head * rows.head_stride;
      for (int t = token; t < token + kTokenBlock; ++t) {
        const bool is_seen = any.begin <= t && t < any.end;
        keys[t] = find_row(work, rows, is_in_place, is_seen ? tile_rows.rows[t] : nullptr, offset,
                           scratch.rows + t * scratch.row_stride);
        prefetch(tile_rows.ahead[t], offset, work.key_bytes);
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
PAGEDKV_TARGET void accumulate_tile(const Work& work, TileRange any, RowFormat format,
                                    const TileRows& tile_rows) {
  const AttentionScratch& scratch = work.scratch;
  const AttentionState& state = work.state;
  const PagedRows& rows = work.layer.values;
  const bool is_in_place = format == rows.format && is_whole(rows);
  const int block = work.rows_per_head > kFewRows ? kTileTokens : kValueBlock;
  const std::byte* values[kTileTokens];
  for (int token = any.begin - any.begin % block; token < any.end; token += block) {
    const TileRange tokens{std::max(token, any.begin), std::min(token + block, any.end)};
    for (int64_t head = 0; head < work.block.num_kv_heads; ++head) {
      const int64_t offset = head * rows.head_stride;
      for (int t = tokens.begin; t < tokens.end; ++t) {
        values[t] = find_row(work, rows, is_in_place, tile_rows.rows[t], offset,
                             scratch.rows + t * scratch.row_stride);
        prefetch(tile_rows.ahead[t], offset, work.value_bytes);
      }
      const int64_t first_row = head * work.rows_per_head;
      accumulate<Format>(values, scratch.visible, tokens, scratch.weights + first_row * kTileTokens,
                         work.rows_per_head, state.accumulator + first_row * state.value_stride,
                         state.value_stride);
    }
  }
}

// Calls `function<Format>(...)` for a format that is direct.
#define PAGEDKV_FOR_FORMAT(format, function, ...)      \
  switch (format) {                                    \
    case RowFormat::kF32:                              \
      function<Float32>(__VA_ARGS__);                  \
      break;                                           \
    case RowFormat::kBf16:                             \
      function<Bfloat16>(__VA_ARGS__);                 \
      break;                                           \
    case RowFormat::kF16:                              \
      function<If<kLoadsHalfs, Float16>>(__VA_ARGS__); \
      break;                                           \
    case RowFormat::kInt8:                             \
      function<If<kLoadsInt8, Int8>>(__VA_ARGS__);     \
      break;                                           \
    case RowFormat::kInt4:                             \
      function<If<kLoadsCodes, Int4>>(__VA_ARGS__);    \
      break;                                           \
    case RowFormat::kE4m3:                             \
      function<If<kLoadsCodes, E4m3>>(__VA_ARGS__);    \
      break;                                           \
    case RowFormat::kE5m2:                             \
      function<If<kLoadsCodes, E5m2>>(__VA_ARGS__);    \
      break;                                           \
  }

// A format, or one that there is anyway in place of one that nobody asks for.
template <bool kIsDirect, typename Format>
using If = std::conditional_t<kIsDirect, Format, Float32>;

PAGEDKV_TARGET void attend_tile(const Work& work, const Tile& tile, const Tile& next,
                                bool in_window) {
  const TileRange any = find_visible(work, tile, in_window);
  if (any.empty() || (tile.exists & places(any)) == 0) return;
  const AttentionScratch& scratch = work.scratch;
  const AttentionState& state = work.state;
  const std::byte* keys[kTileTokens];
  const RowFormat key_format = read_as(work, work.layer.keys);
  PAGEDKV_FOR_FORMAT(key_format, score_tile, work, any, key_format, TileRows(tile.keys, next.keys),
                     keys)
  soften_tile(work, tile);
  if (work.layer.values_are_keys) {
    PAGEDKV_FOR_FORMAT(key_format, accumulate, keys, scratch.visible, any, scratch.weights,
                       work.rows_per_head, state.accumulator, state.value_stride)
    return;
  }
  const RowFormat format = read_as(work, work.layer.values);
  PAGEDKV_FOR_FORMAT(format, accumulate_tile, work, any, format, TileRows(tile.values, next.values))
}

}  // namespace
}  // namespace pagedkv
