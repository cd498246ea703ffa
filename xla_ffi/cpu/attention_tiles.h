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

// How many of `num_rows` rows to take at a time, as far as 16 registers go.
PAGEDKV_INLINE int rows_at_once(int64_t num_rows) {
  if (num_rows <= 4) return static_cast<int>(num_rows);
  return num_rows == 7 || num_rows == 8 ? 4 : 3;
}

// weights[r][t] = query row r times key t, for some tokens. Each product is summed in one order,
// however many are computed at once.
template <typename Format, int kRows, int kTokens>
PAGEDKV_INLINE void dot(const std::byte* const* keys, const float* query, int64_t stride,
                        Floats (*dots)[kTokenBlock]) {
  Floats sums_of[kRows][kTokens];
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) sums_of[r][t] = Floats{};
  }
  int64_t at = 0;
  do {  // a row has a vector, so nothing but registers need be zero
    Floats rows[kRows];
    for (int r = 0; r < kRows; ++r) rows[r] = load(query + r * stride + at);
    for (int t = 0; t < kTokens; ++t) {
      const Floats key = load_at<Format>(keys[t], at);
      for (int r = 0; r < kRows; ++r) sums_of[r][t] += rows[r] * key;
    }
    at += kWidth;
  } while (at < stride);
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) dots[r][t] = sums_of[r][t];
  }
}

// The same for the tokens of one block.
template <typename Format, int kRows>
PAGEDKV_TARGET void score(const std::byte* const* keys, const float* query, int64_t stride,
                          float* weights) {
  Floats dots[kRows][kTokenBlock];
  if constexpr (kRows == 4 && kWidth < 16) {  // all at once would be too many
    dot<Format, kRows, 2>(keys, query, stride, dots);
    Floats others[kRows][kTokenBlock];
    dot<Format, kRows, 2>(keys + 2, query, stride, others);
    for (int r = 0; r < kRows; ++r) dots[r][2] = others[r][0], dots[r][3] = others[r][1];
  } else {
    dot<Format, kRows, kTokenBlock>(keys, query, stride, dots);
  }
  for (int r = 0; r < kRows; ++r) {
    store(weights + r * kTileTokens, sums(dots[r][0], dots[r][1], dots[r][2], dots[r][3]));
  }
}

// The scores of one block of tokens, whose first has place `token`, for those rows that see one.
template <typename Format>
PAGEDKV_TARGET void score_rows(const std::byte* const* keys, int token, const TileRange* visible,
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
    if (count == 4) score<Format, 4>(keys, queries, stride, scores);
    if (count == 3) score<Format, 3>(keys, queries, stride, scores);
    if (count == 2) score<Format, 2>(keys, queries, stride, scores);
    if (count == 1) score<Format, 1>(keys, queries, stride, scores);
  }
}

PAGEDKV_INLINE TileRange overlap(TileRange a, TileRange b) {
  return {std::max(a.begin, b.begin), std::min(a.end, b.end)};
}

// Turns the scores of the tokens a row sees into weights, and brings what the row has summed so far
// to the new maximum. `exists` are the places with a token. `key_scales` and `value_scales`, of
// those places, belong to codes; null without them.
PAGEDKV_TARGET void soften(float* weights, TileRange visible, uint32_t exists,
                           const float* key_scales, const float* value_scales, float soft_cap,
                           float& maximum, float& total, float* accumulator, int64_t stride) {
  constexpr float kUnseen = -std::numeric_limits<float>::infinity();
  const int begin = visible.begin - visible.begin % kWidth;
  const int end = (visible.end + kWidth - 1) / kWidth * kWidth;
  if (key_scales != nullptr) {
    for (int i = begin; i < end; i += kWidth) {
      store(weights + i, load(weights + i) * load(key_scales + i));
    }
  }
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
  if (value_scales != nullptr) {
    for (int i = begin; i < end; i += kWidth) {
      store(weights + i, load(weights + i) * load(value_scales + i));
    }
  }
}

// accumulator[r] += weights[r][t] * value t, for some tokens and some columns.
template <typename Format, int kRows, int kVectors>
PAGEDKV_TARGET void add_columns(const std::byte* const* values, TileRange tokens,
                                const float* weights, float* accumulator, int64_t stride,
                                int64_t column) {
  if (tokens.empty()) return;
  Floats sums_of[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      sums_of[r][v] = load(accumulator + r * stride + column + v * kWidth);
    }
  }
  for (int t = tokens.begin; t < tokens.end; ++t) {
    for (int v = 0; v < kVectors; ++v) {
      const Floats value = load_at<Format>(values[t], column + v * kWidth);
      for (int r = 0; r < kRows; ++r) sums_of[r][v] += weights[r * kTileTokens + t] * value;
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      store(accumulator + r * stride + column + v * kWidth, sums_of[r][v]);
    }
  }
}

// The same for what each of the rows sees: it begins and ends no earlier from row to row. What only
// some rows see must not touch the others, were it by a weight of zero: the value could be NaN.
// Each row adds its tokens in order, whether all see them or it alone.
template <typename Format, int kRows, int kVectors>
PAGEDKV_TARGET void add_visible(const std::byte* const* values, const TileRange* visible,
                                TileRange tokens, const float* weights, float* accumulator,
                                int64_t stride, int64_t column) {
  const TileRange all{visible[kRows - 1].begin, std::max(visible[0].end, visible[kRows - 1].begin)};
  if (all.begin <= tokens.begin && tokens.end <= all.end) {
    return add_columns<Format, kRows, kVectors>(values, tokens, weights, accumulator, stride,
                                                column);
  }
  for (int r = 0; r < kRows; ++r) {
    const TileRange before{visible[r].begin, std::min(all.begin, visible[r].end)};
    add_columns<Format, 1, kVectors>(values, overlap(before, tokens), weights + r * kTileTokens,
                                     accumulator + r * stride, stride, column);
  }
  add_columns<Format, kRows, kVectors>(values, overlap(all, tokens), weights, accumulator, stride,
                                       column);
  for (int r = 0; r < kRows; ++r) {
    const TileRange behind{all.end, visible[r].end};
    add_columns<Format, 1, kVectors>(values, overlap(behind, tokens), weights + r * kTileTokens,
                                     accumulator + r * stride, stride, column);
  }
}

// Two vectors of a row, or four as far as registers go.
template <typename Format, int kVectors>
PAGEDKV_TARGET void add_to_rows(const std::byte* const* values, const TileRange* visible,
                                TileRange tokens, const float* weights, int64_t num_rows,
                                float* accumulator, int64_t stride, int64_t column) {
  int count = 0;
  for (int64_t row = 0; row < num_rows; row += count) {
    count = rows_at_once(num_rows - row);
    const float* of_rows = weights + row * kTileTokens;
    float* to = accumulator + row * stride;
    const TileRange* seen = visible + row;
    if (count == 4) {
      constexpr int kAtOnce = std::min(kVectors, 2);
      for (int v = 0; v < kVectors; v += kAtOnce) {
        add_visible<Format, 4, kAtOnce>(values, seen, tokens, of_rows, to, stride,
                                        column + v * kWidth);
      }
    }
    if (count == 3) {
      add_visible<Format, 3, kVectors>(values, seen, tokens, of_rows, to, stride, column);
    }
    if (count == 2) {
      add_visible<Format, 2, kVectors>(values, seen, tokens, of_rows, to, stride, column);
    }
    if (count == 1) {
      add_visible<Format, 1, kVectors>(values, seen, tokens, of_rows, to, stride, column);
    }
  }
}

// Adds the weighted values of `tokens` to all rows of a head. A few columns after the other, so
// that those of all tokens stay at hand.
template <typename Format>
PAGEDKV_TARGET void accumulate(const std::byte* const* values, const TileRange* visible,
                               TileRange tokens, const float* weights, int64_t num_rows,
                               float* accumulator, int64_t stride) {
  constexpr int64_t kBlock = kVectorBlock * kWidth;
  int64_t column = 0;
  if (num_rows == 1) {  // a sum waits for the one before it, so twice as many side by side
    for (; column + 2 * kBlock <= stride; column += 2 * kBlock) {
      add_visible<Format, 1, 2 * kVectorBlock>(values, visible, tokens, weights, accumulator,
                                               stride, column);
    }
  }
  for (; column + kBlock <= stride; column += kBlock) {
    add_to_rows<Format, kVectorBlock>(values, visible, tokens, weights, num_rows, accumulator,
                                      stride, column);
  }
  for (; column < stride; column += kWidth) {
    add_to_rows<Format, 1>(values, visible, tokens, weights, num_rows, accumulator, stride, column);
  }
}

}  // namespace
}  // namespace pagedkv
