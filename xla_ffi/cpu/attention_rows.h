#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "attention_kernel.h"
#include "attention_vectors.h"
#include "ids.h"

/// From rows in pages to rows of floats. Part of the attention kernel's text, as
/// attention_vectors.h.
namespace pagedkv {
namespace {

// Neighbouring tokens of a request, each in its own place: that of position p is p % kTileTokens.
// So its place does not depend on the block, or else the sums of a row would.
struct Tile {
  int64_t start;    // position of the first place
  TileRange range;  // places that belong to the tile
  uint32_t exists;  // bits of the places whose token has a page; no others
  // By place, of the block's first kv head: rows, and of codes their scales. Null for a token that
  // is not there.
  const std::byte* keys[kTileTokens];
  const std::byte* values[kTileTokens];
  const float* key_scales[kTileTokens];
  const float* value_scales[kTileTokens];
};

static_assert(kTileTokens == 32, "a bit for each place");

// Bits [begin, end).
PAGEDKV_INLINE uint32_t places(TileRange range) {
  const uint64_t below_end = (uint64_t{1} << range.end) - 1;
  return static_cast<uint32_t>(below_end & ~((uint64_t{1} << range.begin) - 1));
}

PAGEDKV_INLINE const std::byte* row_of(const PagedRows& rows, int64_t page, int64_t token,
                                       int64_t head) {
  return rows.data + page * rows.page_stride + token * rows.token_stride + head * rows.head_stride;
}

PAGEDKV_INLINE const float* scale_of(const PagedRows& rows, int64_t page, int64_t token,
                                     int64_t head) {
  if (rows.scales == nullptr) return nullptr;
  return rows.scales + page * rows.scale_page_stride + token * rows.scale_token_stride +
         head * rows.scale_head_stride;
}

// Leaves no token in the tile.
PAGEDKV_INLINE void clear(Tile& tile) {
  tile.exists = 0;
  std::fill_n(tile.keys, kTileTokens, nullptr);
  std::fill_n(tile.values, kTileTokens, nullptr);
}

// Makes `tile` the one that `position` is in, of the tokens [position, end).
PAGEDKV_TARGET void fill(Tile& tile, const AttentionLayer& layer, const AttentionBlock& block,
                         int64_t position, int64_t end) {
  tile.start = position / kTileTokens * kTileTokens;
  end = std::min(end, tile.start + kTileTokens);
  tile.range = {static_cast<int32_t>(position - tile.start),
                static_cast<int32_t>(end - tile.start)};
  clear(tile);
  while (position < end) {
    const int64_t page = position / layer.page_size, offset = position % layer.page_size;
    const int64_t count = std::min(layer.page_size - offset, end - position);
    const int32_t page_id = block.page_ids[page];
    const int64_t first = position - tile.start;
    position += count;
    if (!in_range(page_id, layer.num_pages)) continue;
    const auto begin = static_cast<int32_t>(first), past = static_cast<int32_t>(first + count);
    tile.exists |= places({begin, past});
    for (int64_t i = 0; i < count; ++i) {
      tile.keys[first + i] = row_of(layer.keys, page_id, offset + i, block.kv_head);
      tile.values[first + i] = row_of(layer.values, page_id, offset + i, block.kv_head);
      tile.key_scales[first + i] = scale_of(layer.keys, page_id, offset + i, block.kv_head);
      tile.value_scales[first + i] = scale_of(layer.values, page_id, offset + i, block.kv_head);
    }
  }
}

template <typename Format>
PAGEDKV_INLINE void widen_as(const std::byte* from, int64_t dim, float* to) {
  int64_t i = 0;
  for (; i + 2 * kWidth <= dim; i += 2 * kWidth) {
    store(to + i, load_at<Format>(from, i));
    store(to + i + kWidth, load_at<Format>(from, i + kWidth));
  }
  for (; i + kWidth <= dim; i += kWidth) store(to + i, load_at<Format>(from, i));
  for (; i < dim; ++i) to[i] = element<Format>(from, i);
}

PAGEDKV_TARGET void widen(RowFormat format, const std::byte* from, int64_t dim, float* to) {
  switch (format) {
    case RowFormat::kF32:
      return widen_as<Float32>(from, dim, to);
    case RowFormat::kF16:
      return widen_as<Float16>(from, dim, to);
    case RowFormat::kBf16:
      return widen_as<Bfloat16>(from, dim, to);
    case RowFormat::kInt8:
      return widen_as<Int8>(from, dim, to);
    case RowFormat::kInt4:
      return widen_as<Int4>(from, dim, to);
    case RowFormat::kE4m3:
      return widen_as<E4m3>(from, dim, to);
    case RowFormat::kE5m2:
      return widen_as<E5m2>(from, dim, to);
  }
}

// The elements of a row that lie apart, back to back.
PAGEDKV_TARGET const std::byte* collect(const PagedRows& rows, const std::byte* row, float* raw) {
  auto* const to = reinterpret_cast<std::byte*>(raw);
  switch (rows.element_bytes) {
    case 1:
      for (int64_t i = 0; i < rows.dim; ++i) to[i] = row[i * rows.element_stride];
      break;
    case 2:
      for (int64_t i = 0; i < rows.dim; ++i) {
        std::memcpy(to + 2 * i, row + i * rows.element_stride, 2);
      }
      break;
    default:
      for (int64_t i = 0; i < rows.dim; ++i) {
        std::memcpy(to + 4 * i, row + i * rows.element_stride, 4);
      }
  }
  return to;
}

// Whether the arithmetic may read rows where they are: whole vectors of neighbouring elements.
PAGEDKV_INLINE bool is_whole(const PagedRows& rows) {
  return rows.dim > 0 && rows.dim % kRowAlignment == 0 && !rows.is_scattered();
}

// A row as floats in whole vectors, without its scale: codes are small enough to be exact.
PAGEDKV_INLINE void copy_row(const PagedRows& rows, const std::byte* row, float* raw, float* copy) {
  if (rows.is_scattered()) row = collect(rows, row, raw);
  widen(rows.format, row, rows.dim, copy);
  std::fill(copy + rows.dim, copy + padded_row(rows.dim), 0.0f);
}

// Asks for the first `num_bytes` of a row before they are read.
PAGEDKV_INLINE void prefetch(const std::byte* row, int64_t offset, int64_t num_bytes) {
  constexpr int64_t kLineBytes = 64;
  if (row == nullptr) return;
  row += offset;
  for (int64_t at = 0; at < num_bytes; at += kLineBytes) __builtin_prefetch(row + at);
}

// The bytes of a row that lie together.
PAGEDKV_INLINE int64_t row_bytes(const PagedRows& rows) {
  return rows.is_scattered() ? 0 : rows.dim * format_bits(rows.format) / 8;
}

}  // namespace
}  // namespace pagedkv
