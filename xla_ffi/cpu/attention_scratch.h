#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>

/// The memory of the attention kernel: rows of floats, padded with zeros to whole vectors.
namespace pagedkv {

/// Floats that rows are padded to a multiple of: the widest vector.
inline constexpr int64_t kRowAlignment = 16;
/// Tokens whose scores are in hand at a time.
inline constexpr int kTileTokens = 32;

constexpr int64_t padded_row(int64_t dim) {
  return (dim + kRowAlignment - 1) / kRowAlignment * kRowAlignment;
}

/// What rows have come to: weights and values summed, relative to the largest score so far.
struct AttentionState {
  int64_t value_stride;
  float* accumulator;  // [rows, value_stride]
  float* maximum;      // [rows]
  float* total;        // [rows]

  AttentionState(int64_t num_rows, int64_t value_dim, float* memory)
      : value_stride(padded_row(value_dim)),
        accumulator(memory),
        maximum(memory + num_rows * value_stride),
        total(maximum + padded_row(num_rows)) {}

  /// Floats of the memory that it takes.
  static int64_t size(int64_t num_rows, int64_t value_dim) {
    return num_rows * padded_row(value_dim) + 2 * padded_row(num_rows);
  }
};

/// Tokens [begin, end) of a tile.
struct TileRange {
  int32_t begin, end;

  bool empty() const { return begin >= end; }
};

/// What a worker needs for a block, apart from states. Memory is aligned to 64 bytes.
struct AttentionScratch {
  int64_t key_stride;
  int64_t row_stride;  // of a key or of a value, whichever is longer
  float* query;        // [rows, key_stride]
  float* rows;         // [kTileTokens, row_stride]: keys or values of one head, as floats
  float* zeros;        // [row_stride]: the row of a token that is not there
  float* raw;          // [row_stride]: a row whose elements lie apart in the pool
  float* weights;      // [rows of a head, kTileTokens]: scores, then their exponentials
  TileRange* visible;  // [rows of a head]

  AttentionScratch(int64_t num_rows, int64_t rows_per_head, int64_t key_dim, int64_t value_dim,
                   float* memory)
      : key_stride(padded_row(key_dim)), row_stride(padded_row(std::max(key_dim, value_dim))) {
    query = memory;
    rows = query + num_rows * key_stride;
    zeros = rows + kTileTokens * row_stride;
    raw = zeros + row_stride;
    weights = raw + row_stride;
    visible = reinterpret_cast<TileRange*>(weights + rows_per_head * kTileTokens);
    std::fill_n(zeros, row_stride, 0.0f);
  }

  /// Floats of the memory that it takes.
  static int64_t size(int64_t num_rows, int64_t rows_per_head, int64_t key_dim,
                      int64_t value_dim) {
    return num_rows * padded_row(key_dim) +
           (kTileTokens + 2) * padded_row(std::max(key_dim, value_dim)) +
           rows_per_head * kTileTokens + 2 * padded_row(rows_per_head);
  }
};

static_assert(sizeof(TileRange) == 2 * sizeof(float));

}  // namespace pagedkv
