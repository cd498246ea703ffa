#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#include "attention_kernel.h"
#include "ids.h"

/// The kernel, as a text that several sources include, each for its instruction set: they define
/// PAGEDKV_TARGET, the attribute of every function here, and PAGEDKV_VECTOR_BYTES. A lambda would
/// not inherit the attribute, and a function without it would not be inlined, so there are none.
#define PAGEDKV_INLINE PAGEDKV_TARGET __attribute__((always_inline)) inline

namespace pagedkv {
namespace {

// --- vectors
// --------------------------------------------------------------------------------------

constexpr int kWidth = PAGEDKV_VECTOR_BYTES / sizeof(float);
constexpr int kLaneWidth = 4;  // shuffles stay inside 16 bytes, where they are cheap

typedef float Floats __attribute__((vector_size(PAGEDKV_VECTOR_BYTES)));
typedef int32_t Ints __attribute__((vector_size(PAGEDKV_VECTOR_BYTES)));
typedef uint32_t Words __attribute__((vector_size(PAGEDKV_VECTOR_BYTES)));
typedef uint16_t HalfWords __attribute__((vector_size(PAGEDKV_VECTOR_BYTES / 2)));
typedef float Lane __attribute__((vector_size(kLaneWidth * sizeof(float))));

// The upper half of a float32.
struct Bfloat16 {
  uint16_t bits;
};

template <typename Vector, typename T>
PAGEDKV_INLINE Vector load_as(const T* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof(vector));
  return vector;
}

PAGEDKV_INLINE Floats load(const float* from) { return load_as<Floats>(from); }

PAGEDKV_INLINE Floats load(const Bfloat16* from) {
  const Words words = __builtin_convertvector(load_as<HalfWords>(from), Words);
  return reinterpret_cast<Floats>(words << 16);
}

template <typename Vector>
PAGEDKV_INLINE void store(float* to, Vector vector) {
  std::memcpy(to, &vector, sizeof(vector));
}

PAGEDKV_INLINE Floats broadcast(float value) { return value - Floats{}; }

PAGEDKV_INLINE float to_float(float value) { return value; }

PAGEDKV_INLINE float to_float(Bfloat16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

PAGEDKV_INLINE void from_float(float value, float& to) { to = value; }

// To nearest, ties to even. Adding to a NaN could carry into infinity, so its bits are cut.
PAGEDKV_INLINE void from_float(float value, Bfloat16& to) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const bool is_nan = value != value;
  const uint32_t rounded = is_nan ? bits | 0x400000u : bits + 0x7fffu + ((bits >> 16) & 1u);
  to.bits = static_cast<uint16_t>(rounded >> 16);
}

// In each 16 bytes: the first or last two floats of both, taken in turns or one after the other.
constexpr int interleaved(int i, int half) {
  const int lane = i / kLaneWidth, at = i % kLaneWidth;
  return (at % 2) * kWidth + lane * kLaneWidth + 2 * half + at / 2;
}
constexpr int joined(int i, int half) {
  const int lane = i / kLaneWidth, at = i % kLaneWidth;
  return (at / 2) * kWidth + lane * kLaneWidth + 2 * half + at % 2;
}

template <int... kI>
PAGEDKV_INLINE Floats add_interleaved(Floats a, Floats b, std::integer_sequence<int, kI...>) {
  return __builtin_shufflevector(a, b, interleaved(kI, 0)...) +
         __builtin_shufflevector(a, b, interleaved(kI, 1)...);
}

template <int... kI>
PAGEDKV_INLINE Floats add_joined(Floats a, Floats b, std::integer_sequence<int, kI...>) {
  return __builtin_shufflevector(a, b, joined(kI, 0)...) +
         __builtin_shufflevector(a, b, joined(kI, 1)...);
}

// The sum of each of four vectors.
PAGEDKV_INLINE Lane sums(Floats a, Floats b, Floats c, Floats d) {
  constexpr std::make_integer_sequence<int, kWidth> kAll;
  const Floats in_lanes =
      add_joined(add_interleaved(a, b, kAll), add_interleaved(c, d, kAll), kAll);
  float lanes[kWidth];
  store(lanes, in_lanes);
  Lane sum = load_as<Lane>(lanes);
  for (int at = kLaneWidth; at < kWidth; at += kLaneWidth) sum += load_as<Lane>(lanes + at);
  return sum;
}

PAGEDKV_INLINE float largest(Floats vector) {
  float values[kWidth];
  store(values, vector);
  float result = values[0];
  for (int i = 1; i < kWidth; ++i) result = values[i] > result ? values[i] : result;
  return result;
}

PAGEDKV_INLINE float sum(Floats vector) {
  float values[kWidth];
  store(values, vector);
  float result = values[0];
  for (int i = 1; i < kWidth; ++i) result += values[i];
  return result;
}

// e^x for x <= 0, to 1e-7 of it: x = n ln 2 + r, and a polynomial for e^r (Cephes). Below
// kSmallestExponent, where the result would be denormal, it is 0. A NaN stays one.
PAGEDKV_INLINE Floats exponential(Floats x) {
  constexpr float kSmallestExponent = -87.33654f;
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: what is added to it becomes whole
  constexpr int kExponentBias = 127, kMantissaBits = 23;

  const auto underflows = x < kSmallestExponent;
  const Floats clamped = underflows ? broadcast(kSmallestExponent) : x;
  const Floats n = (clamped * kLog2E + kRounder) - kRounder;
  const Floats r = (clamped - n * kLn2High) - n * kLn2Low;
  Floats polynomial = broadcast(1.9875691500e-4f);
  polynomial = polynomial * r + 1.3981999507e-3f;
  polynomial = polynomial * r + 8.3334519073e-3f;
  polynomial = polynomial * r + 4.1665795894e-2f;
  polynomial = polynomial * r + 1.6666665459e-1f;
  polynomial = polynomial * r + 5.0000001201e-1f;
  const Floats e_r = polynomial * (r * r) + r + 1.0f;
  const Ints exponent = (__builtin_convertvector(n, Ints) + kExponentBias) << kMantissaBits;
  return underflows ? Floats{} : e_r * reinterpret_cast<Floats>(exponent);
}

// --- the kernel
// -----------------------------------------------------------------------------------

constexpr int kTileTokens = 32;  // whose scores are in hand at a time
constexpr int kRowBlock = 3;     // with kTokenBlock, what fits in 16 registers
constexpr int kTokenBlock = 4;   // one `sums`
constexpr int kVectorBlock = 4;  // of a value row

static_assert(kTileTokens % kTokenBlock == 0 && kTileTokens % kWidth == 0);

constexpr int64_t padded(int64_t dim) { return (dim + kWidth - 1) / kWidth * kWidth; }

// Where the parts of a block's scratch are. Rows of floats are padded with zeros to whole vectors.
struct Scratch {
  int64_t key_stride, value_stride;
  float* query;        // [rows, key_stride], scaled
  float* accumulator;  // [rows, value_stride]
  float* weights;      // [kRowBlock, kTileTokens]: scores, then their exponentials
  float* maximum;      // [rows]
  float* total;        // [rows]
  float* keys;         // [kTileTokens, key_stride], where rows are not used in place
  float* values;       // [kTileTokens, value_stride]

  PAGEDKV_TARGET Scratch(const AttentionLayer& layer, int64_t num_rows, float* memory)
      : key_stride(padded(layer.key_dim)), value_stride(padded(layer.value_dim)) {
    query = memory;
    keys = query + num_rows * key_stride;
    accumulator = keys + kTileTokens * key_stride;
    values = accumulator + num_rows * value_stride;
    weights = values + kTileTokens * value_stride;
    maximum = weights + kRowBlock * kTileTokens;
    total = maximum + num_rows;
  }
};

// Tokens of a request that exist, in order: absent ones are left out. Their rows have all heads.
// Those before `first` are left of every window: they keep their places, and have no rows.
template <typename T>
struct Tile {
  int first = 0;
  int size = 0;
  int64_t positions[kTileTokens];
  const T* keys[kTileTokens];
  const T* values[kTileTokens];
};

// The rows of one head, as whole vectors of floats.
struct HeadTile {
  const float* keys[kTileTokens];
  const float* values[kTileTokens];
};

template <typename T>
PAGEDKV_TARGET void to_floats(const T* from, int64_t dim, float* to, int64_t stride) {
  int64_t i = 0;
  for (; i + kWidth <= dim; i += kWidth) store(to + i, load(from + i));
  for (; i < dim; ++i) to[i] = to_float(from[i]);
  for (; i < stride; ++i) to[i] = 0.0f;
}

// The row as whole vectors of floats: where it is, or else a copy of it.
template <typename T>
PAGEDKV_INLINE const float* as_floats(const T* row, int64_t dim, float* copy, int64_t stride) {
  if constexpr (std::is_same_v<T, float>) {
    if (dim == stride) return row;
  }
  to_floats(row, dim, copy, stride);
  return copy;
}

// Fills the tile with the tokens at [position, end). A token's place in its tile does not depend on
// the block, or else the sums of a row would.
template <typename T>
PAGEDKV_TARGET void fill(Tile<T>& tile, const AttentionLayer& layer, const AttentionBlock& block,
                         int64_t position, int64_t end) {
  const int64_t key_row = layer.num_kv_heads * layer.key_dim;
  const int64_t value_row = layer.num_kv_heads * layer.value_dim;
  const T* keys = reinterpret_cast<const T*>(layer.keys) + block.kv_head * layer.key_dim;
  const T* values = reinterpret_cast<const T*>(layer.values) + block.kv_head * layer.value_dim;
  const int64_t first_visible = block.first_visible();
  tile.first = tile.size = 0;
  while (position < end) {
    const int64_t page = position / layer.page_size, offset = position % layer.page_size;
    const int64_t count = std::min(layer.page_size - offset, end - position);
    const int32_t page_id = block.page_ids[page];
    if (in_range(page_id, layer.num_pages)) {
      const int64_t slot = page_id * layer.page_size + offset;
      for (int64_t i = 0; i < count; ++i, ++tile.size) {
        tile.positions[tile.size] = position + i;
        if (position + i < first_visible) {
          tile.first = tile.size + 1;
          continue;
        }
        tile.keys[tile.size] = keys + (slot + i) * key_row;
        tile.values[tile.size] = values + (slot + i) * value_row;
      }
    }
    position += count;
  }
}

// Head `head` of the block: its rows where they are, or copies in the scratch.
template <typename T>
PAGEDKV_TARGET void take_head(const Tile<T>& tile, const AttentionLayer& layer,
                              const Scratch& scratch, int64_t head, HeadTile& rows) {
  for (int t = tile.first; t < tile.size; ++t) {
    rows.keys[t] = as_floats(tile.keys[t] + head * layer.key_dim, layer.key_dim,
                             scratch.keys + t * scratch.key_stride, scratch.key_stride);
    rows.values[t] = as_floats(tile.values[t] + head * layer.value_dim, layer.value_dim,
                               scratch.values + t * scratch.value_stride, scratch.value_stride);
  }
  // Whole blocks of tokens are scored; what is beyond the first and the last is not used.
  for (int t = tile.first; t % kTokenBlock != 0; --t) rows.keys[t - 1] = rows.keys[tile.first];
  for (int t = tile.size; t % kTokenBlock != 0; ++t) rows.keys[t] = rows.keys[tile.size - 1];
}

// Tokens [begin, end) of a tile.
struct Range {
  int begin, end;

  PAGEDKV_INLINE bool empty() const { return begin >= end; }
};

// weights[r][t] = query row r times key t, for some tokens of the tile, in whole blocks of them.
template <int kRows>
PAGEDKV_TARGET void score(const float* const* keys, Range tokens, const float* query,
                          int64_t stride, float* weights) {
  for (int token = tokens.begin - tokens.begin % kTokenBlock; token < tokens.end;
       token += kTokenBlock) {
    Floats dots[kRows][kTokenBlock] = {};
    for (int64_t at = 0; at < stride; at += kWidth) {
      Floats rows[kRows];
      for (int r = 0; r < kRows; ++r) rows[r] = load(query + r * stride + at);
      for (int t = 0; t < kTokenBlock; ++t) {
        const Floats key = load(keys[token + t] + at);
        for (int r = 0; r < kRows; ++r) dots[r][t] += rows[r] * key;
      }
    }
    for (int r = 0; r < kRows; ++r) {
      store(weights + r * kTileTokens + token,
            sums(dots[r][0], dots[r][1], dots[r][2], dots[r][3]));
    }
  }
}

// Turns the scores of the tokens a row sees into weights, and brings what the row has summed so far
// to the new maximum.
PAGEDKV_TARGET void soften(float* weights, Range visible, float& maximum, float& total,
                           float* accumulator, int64_t stride) {
  constexpr float kUnseen = -std::numeric_limits<float>::infinity();
  const int begin = visible.begin - visible.begin % kWidth;
  const int end = static_cast<int>(padded(visible.end));
  for (int i = begin; i < visible.begin; ++i) weights[i] = kUnseen;
  for (int i = visible.end; i < end; ++i) weights[i] = kUnseen;
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
PAGEDKV_INLINE void accumulate_columns(const float* const* values, Range tokens,
                                       const float* weights, float* accumulator, int64_t stride,
                                       int64_t column) {
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

template <int kRows>
PAGEDKV_TARGET void accumulate(const float* const* values, Range tokens, const float* weights,
                               float* accumulator, int64_t stride) {
  if (tokens.empty()) return;
  constexpr int64_t kBlock = kVectorBlock * kWidth;
  int64_t column = 0;
  for (; column + kBlock <= stride; column += kBlock) {
    accumulate_columns<kRows, kVectorBlock>(values, tokens, weights, accumulator, stride, column);
  }
  for (; column < stride; column += kWidth) {
    accumulate_columns<kRows, 1>(values, tokens, weights, accumulator, stride, column);
  }
}

// The tokens of the tile that the query at `position` sees. They are neighbours: attention is
// causal, and goes back as far as the window.
template <typename T>
PAGEDKV_INLINE Range visible_to(const Tile<T>& tile, int64_t position, int64_t window) {
  Range range{tile.first, tile.size};
  while (!range.empty() && tile.positions[range.end - 1] > position) --range.end;
  while (!range.empty() && tile.positions[range.begin] <= position - window) ++range.begin;
  return range;
}

// Rows [row, row + kRows) of the scratch over one tile. What they see of it, `visible`, begins and
// ends no earlier from row to row.
template <int kRows>
PAGEDKV_TARGET void attend_rows(const HeadTile& tile, const Range* visible, const Scratch& scratch,
                                int64_t row) {
  const Range any{visible[0].begin, visible[kRows - 1].end};
  if (any.empty()) return;
  float* accumulator = scratch.accumulator + row * scratch.value_stride;
  score<kRows>(tile.keys, any, scratch.query + row * scratch.key_stride, scratch.key_stride,
               scratch.weights);
  for (int r = 0; r < kRows; ++r) {
    if (visible[r].empty()) continue;
    soften(scratch.weights + r * kTileTokens, visible[r], scratch.maximum[row + r],
           scratch.total[row + r], accumulator + r * scratch.value_stride, scratch.value_stride);
  }
  // What only some rows see must not touch the others, were it by a weight of zero: the value could
  // be NaN. Each row adds its tokens in order, whether all see them or it alone.
  const Range all{visible[kRows - 1].begin, std::max(visible[0].end, visible[kRows - 1].begin)};
  for (int r = 0; r < kRows; ++r) {
    accumulate<1>(tile.values, {visible[r].begin, std::min(all.begin, visible[r].end)},
                  scratch.weights + r * kTileTokens, accumulator + r * scratch.value_stride,
                  scratch.value_stride);
  }
  accumulate<kRows>(tile.values, all, scratch.weights, accumulator, scratch.value_stride);
  for (int r = 0; r < kRows; ++r) {
    accumulate<1>(tile.values, {all.end, visible[r].end}, scratch.weights + r * kTileTokens,
                  accumulator + r * scratch.value_stride, scratch.value_stride);
  }
}

// All rows of one head over one tile. Rows of a head go from token to token.
template <typename T>
PAGEDKV_TARGET void attend_head(const Tile<T>& tile, const HeadTile& rows,
                                const AttentionBlock& block, const Scratch& scratch, int64_t head) {
  const int64_t num_rows = block.num_tokens * block.group_size;
  const int64_t first_row = head * num_rows;
  for (int64_t row = 0; row < num_rows; row += kRowBlock) {
    const int64_t count = std::min<int64_t>(kRowBlock, num_rows - row);
    Range visible[kRowBlock];
    for (int64_t r = 0; r < count; ++r) {
      const int64_t position = block.first_position + (row + r) / block.group_size;
      visible[r] = visible_to(tile, position, block.window);
    }
    if (count == kRowBlock) attend_rows<kRowBlock>(rows, visible, scratch, first_row + row);
    if (count == 2) attend_rows<2>(rows, visible, scratch, first_row + row);
    if (count == 1) attend_rows<1>(rows, visible, scratch, first_row + row);
  }
}

static_assert(kRowBlock == 3);

// The row of the scratch that holds query head `head` of the block, in token `token`.
PAGEDKV_INLINE int64_t scratch_row(const AttentionBlock& block, int64_t token, int64_t head) {
  const int64_t kv_head = head / block.group_size, member = head % block.group_size;
  return (kv_head * block.num_tokens + token) * block.group_size + member;
}

template <typename T>
PAGEDKV_TARGET void load_queries(const AttentionLayer& layer, const AttentionBlock& block,
                                 const Scratch& scratch) {
  const T* token_rows = reinterpret_cast<const T*>(block.query);
  for (int64_t token = 0; token < block.num_tokens; ++token) {
    for (int64_t head = 0; head < block.num_kv_heads * block.group_size; ++head) {
      float* to = scratch.query + scratch_row(block, token, head) * scratch.key_stride;
      to_floats(token_rows + head * layer.key_dim, layer.key_dim, to, scratch.key_stride);
      for (int64_t i = 0; i < scratch.key_stride; i += kWidth) {
        store(to + i, load(to + i) * block.scale);
      }
    }
    token_rows += layer.num_kv_heads * block.group_size * layer.key_dim;
  }
}

template <typename T>
PAGEDKV_TARGET void store_outputs(const AttentionLayer& layer, const AttentionBlock& block,
                                  const Scratch& scratch) {
  T* token_rows = reinterpret_cast<T*>(block.output);
  for (int64_t token = 0; token < block.num_tokens; ++token) {
    for (int64_t head = 0; head < block.num_kv_heads * block.group_size; ++head) {
      const int64_t row = scratch_row(block, token, head);
      const float* from = scratch.accumulator + row * scratch.value_stride;
      // A row that saw nothing has summed nothing.
      const float factor = scratch.total[row] == 0.0f ? 0.0f : 1.0f / scratch.total[row];
      T* to = token_rows + head * layer.value_dim;
      for (int64_t i = 0; i < layer.value_dim; ++i) from_float(from[i] * factor, to[i]);
    }
    token_rows += layer.num_kv_heads * block.group_size * layer.value_dim;
  }
}

template <typename T>
PAGEDKV_TARGET void attend_as(const AttentionLayer& layer, const AttentionBlock& block,
                              const Scratch& scratch) {
  const int64_t num_rows = block.num_rows();
  load_queries<T>(layer, block, scratch);
  std::fill_n(scratch.accumulator, num_rows * scratch.value_stride, 0.0f);
  std::fill_n(scratch.maximum, num_rows, std::numeric_limits<float>::lowest());
  std::fill_n(scratch.total, num_rows, 0.0f);

  Tile<T> tile;
  HeadTile rows;
  const int64_t end = block.first_position + block.num_tokens;
  const int64_t first_tile = block.first_visible() / kTileTokens * kTileTokens;
  for (int64_t position = first_tile; position < end; position += kTileTokens) {
    fill(tile, layer, block, position, std::min(end, position + kTileTokens));
    if (tile.first == tile.size) continue;  // no page of these exists
    for (int64_t head = 0; head < block.num_kv_heads; ++head) {
      take_head(tile, layer, scratch, head, rows);
      attend_head(tile, rows, block, scratch, head);
    }
  }
  store_outputs<T>(layer, block, scratch);
}

PAGEDKV_TARGET void attend(const AttentionLayer& layer, const AttentionBlock& block,
                           float* memory) {
  const Scratch scratch(layer, block.num_rows(), memory);
  switch (layer.dtype) {
    case AttentionDType::kFloat32:
      return attend_as<float>(layer, block, scratch);
    case AttentionDType::kBfloat16:
      return attend_as<Bfloat16>(layer, block, scratch);
  }
}

}  // namespace
}  // namespace pagedkv
