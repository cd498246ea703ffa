#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>

#include "attention_kernel.h"
#include "attention_vectors.h"

/// The arithmetic of a tile: scores, weights, weighted sums of values. Part of the attention
/// kernel's text, as attention_vectors.h. What a row comes to does not depend on the rows that are
/// computed beside it.
namespace pagedkv {
namespace {

constexpr int kTokenBlock = 4;   // one `sums`
constexpr int kVectorBlock = 4;  // of a value row; with the rows beside it, what fits in registers

static_assert(kTileTokens % kTokenBlock == 0 && kTileTokens % kWidth == 0);
static_assert(kRowAlignment % kWidth == 0);

// How many of `num_rows` rows to take at a time: with kTokenBlock three fit in 16 registers, and one
// alone would be slow.
PAGEDKV_INLINE int rows_at_once(int64_t num_rows) {
  if (num_rows == 4) return 2;
  return static_cast<int>(std::min<int64_t>(num_rows, 3));
}

// weights[r][t] = query row r times key t, for the tokens of one block.
template <int kRows>
PAGEDKV_TARGET void score(const float* const* keys, const float* query, int64_t stride,
                          float* weights) {
  Floats dots[kRows][kTokenBlock] = {};
  for (int64_t at = 0; at < stride; at += kWidth) {
    Floats rows[kRows];
    for (int r = 0; r < kRows; ++r) rows[r] = load(query + r * stride + at);
    for (int t = 0; t < kTokenBlock; ++t) {
      const Floats key = load(keys[t] + at);
      for (int r = 0; r < kRows; ++r) dots[r][t] += rows[r] * key;
    }
  }
  for (int r = 0; r < kRows; ++r) {
    store(weights + r * kTileTokens, sums(dots[r][0], dots[r][1], dots[r][2], dots[r][3]));
  }
}

// The scores of one block of tokens, whose first has place `token`, for those rows that see one.
PAGEDKV_TARGET void score_rows(const float* const* keys, int token, const TileRange* visible,
                               const float* query, int64_t stride, int64_t num_rows,
                               float* weights) {
  int count = 0;
  for (int64_t row = 0; row < num_rows; row += count) {
    count = rows_at_once(num_rows - row);
    if (visible[row].begin >= token + kTokenBlock || visible[row + count - 1].end <= token) {
      continue;
    }
    const float* queries = query + row * stride;
    float* scores = weights + row * kTileTokens + token;
    if (count == 3) score<3>(keys, queries, stride, scores);
    if (count == 2) score<2>(keys, queries, stride, scores);
    if (count == 1) score<1>(keys, queries, stride, scores);
  }
}

// Turns the scores of the tokens a row sees into weights, and brings what the row has summed so far
// to the new maximum. `exists` are the places with a token.
PAGEDKV_TARGET void soften(float* weights, TileRange visible, uint32_t exists, float soft_cap,
                           float& maximum, float& total, float* accumulator, int64_t stride) {
  constexpr float kUnseen = -std::numeric_limits<float>::infinity();
  const int begin = visible.begin - visible.begin % kWidth;
  const int end = (visible.end + kWidth - 1) / kWidth * kWidth;
  if (soft_cap != 0.0f) {
    for (int i = begin; i < end; i += kWidth) {
      store(weights + i, soft_cap * hyperbolic_tangent(load(weights + i) / soft_cap));
    }
  }
  for (int i = begin; i < visible.begin; ++i) weights[i] = kUnseen;
  for (int i = visible.end; i < end; ++i) weights[i] = kUnseen;
  for (uint32_t absent = ~exists; absent != 0; absent &= absent - 1) {
    weights[std::countr_zero(absent)] = kUnseen;
  }
  Floats highest = load(weights + begin);
  for (int i = begin + kWidth; i < end; i += kWidth) {
    const Floats scores = load(weights + i);
    highest = scores > highest ? scores : highest;
  }
  if (const float seen = largest(highest); seen > maximum) {
    const Floats shrink = exponential(broadcast(maximum - seen));
    maximum = seen;
    total *= shrink[0];
    for (int64_t i = 0; i < stride; i += kWidth) {
      store(accumulator + i, load(accumulator + i) * shrink);
    }
  }
  Floats sum_of_weights = {};
  for (int i = begin; i < end; i += kWidth) {
    const Floats exponentials = exponential(load(weights + i) - maximum);
    store(weights + i, exponentials);
    sum_of_weights += exponentials;
  }
  total += sum(sum_of_weights);
}

// accumulator[r] += weights[r][t] * value t, for some tokens and some columns.
template <int kRows, int kVectors>
PAGEDKV_TARGET void add_columns(const float* const* values, TileRange tokens, const float* weights,
                                float* accumulator, int64_t stride, int64_t column) {
  if (tokens.empty()) return;
  Floats sums_of[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      sums_of[r][v] = load(accumulator + r * stride + column + v * kWidth);
    }
  }
  for (int t = tokens.begin; t < tokens.end; ++t) {
    for (int v = 0; v < kVectors; ++v) {
      const Floats value = load(values[t] + column + v * kWidth);
      for (int r = 0; r < kRows; ++r) sums_of[r][v] += weights[r * kTileTokens + t] * value;
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      store(accumulator + r * stride + column + v * kWidth, sums_of[r][v]);
    }
  }
}

// The same for all that each of the rows sees: it begins and ends no earlier from row to row. What
// only some rows see must not touch the others, were it by a weight of zero: the value could be NaN.
// Each row adds its tokens in order, whether all see them or it alone.
template <int kRows, int kVectors>
PAGEDKV_TARGET void add_visible(const float* const* values, const TileRange* visible,
                                const float* weights, float* accumulator, int64_t stride,
                                int64_t column) {
  const TileRange all{visible[kRows - 1].begin, std::max(visible[0].end, visible[kRows - 1].begin)};
  for (int r = 0; r < kRows; ++r) {
    add_columns<1, kVectors>(values, {visible[r].begin, std::min(all.begin, visible[r].end)},
                             weights + r * kTileTokens, accumulator + r * stride, stride, column);
  }
  add_columns<kRows, kVectors>(values, all, weights, accumulator, stride, column);
  for (int r = 0; r < kRows; ++r) {
    add_columns<1, kVectors>(values, {all.end, visible[r].end},
                             weights + r * kTileTokens, accumulator + r * stride, stride, column);
  }
}

template <int kVectors>
PAGEDKV_TARGET void add_to_rows(const float* const* values, const TileRange* visible,
                                const float* weights, int64_t num_rows, float* accumulator,
                                int64_t stride, int64_t column) {
  int count = 0;
  for (int64_t row = 0; row < num_rows; row += count) {
    count = rows_at_once(num_rows - row);
    const float* of_rows = weights + row * kTileTokens;
    float* to = accumulator + row * stride;
    const TileRange* seen = visible + row;
    if (count == 3) add_visible<3, kVectors>(values, seen, of_rows, to, stride, column);
    if (count == 2) add_visible<2, kVectors>(values, seen, of_rows, to, stride, column);
    if (count == 1) add_visible<1, kVectors>(values, seen, of_rows, to, stride, column);
  }
}

// Adds the weighted values of the tile to all rows of a head. A few columns after the other, so that
// those of all tokens stay at hand.
PAGEDKV_TARGET void accumulate(const float* const* values, const TileRange* visible,
                               const float* weights, int64_t num_rows, float* accumulator,
                               int64_t stride) {
  constexpr int64_t kBlock = kVectorBlock * kWidth;
  int64_t column = 0;
  for (; column + kBlock <= stride; column += kBlock) {
    add_to_rows<kVectorBlock>(values, visible, weights, num_rows, accumulator, stride, column);
  }
  for (; column < stride; column += kWidth) {
    add_to_rows<1>(values, visible, weights, num_rows, accumulator, stride, column);
  }
}

}  // namespace
}  // namespace pagedkv
