#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "attention_mask.h"
#include "attention_scratch.h"
#include "number_codes.h"

/// Attention of a few query rows over the pages of one request.
///
/// One template, compiled for several instruction sets; which one runs is decided at run time. A
/// context is cut into parts at fixed positions. What a row makes of a part depends on its own
/// query and context alone, not on the rows beside it, and parts are merged in order: how a batch
/// is cut into blocks, and who computes them, changes no bit. Between instruction sets the last
/// bits differ.
namespace pagedkv {

/// Tokens of a part. Softmax over parts that are merged afterwards is Flash-Decoding (Dao et al.,
/// 2023).
inline constexpr int64_t kPartTokens = 1024;

/// What elements of a pool are.
enum class RowFormat : uint8_t { kF32, kF16, kBf16, kInt8, kInt4, kE4m3, kE5m2 };

/// Bits of an element.
constexpr int64_t format_bits(RowFormat format) {
  switch (format) {
    case RowFormat::kF32:
      return 32;
    case RowFormat::kF16:
    case RowFormat::kBf16:
      return 16;
    case RowFormat::kInt4:
      return 4;
    default:
      return 8;
  }
}

/// The keys or the values of one layer, where they lie in its pool. Strides are in bytes.
struct PagedRows {
  const std::byte* data;  // head 0 of token 0 of page 0
  int64_t dim;            // elements of a row
  int64_t page_stride;
  int64_t token_stride;
  int64_t head_stride;
  int64_t element_bytes;   // 0 under a byte
  int64_t element_stride;  // other than `element_bytes` where elements lie apart
  RowFormat format;
  const float* scales;  // of codes; null for floats. Their strides are in scales.
  int64_t scale_page_stride;
  int64_t scale_token_stride;
  int64_t scale_head_stride;

  bool is_scattered() const { return element_stride != element_bytes; }
};

/// One layer, and how its scores become weights.
struct AttentionLayer {
  PagedRows keys;
  PagedRows values;
  bool values_are_keys;  // a value is the first elements of the key's row (MLA)
  int64_t num_pages;
  int64_t page_size;
  int64_t num_kv_heads;
  int64_t group_size;    // query heads of a kv head
  FloatType query_type;  // of the output too
  float scale;           // of the scores
  float soft_cap;        // scores become soft_cap * tanh(score / soft_cap); 0 for none
  const float* sinks;    // by query head: a score that has a weight and no value; null for none
  AttentionMask mask;

  int64_t num_heads() const { return num_kv_heads * group_size; }
};

/// Neighbouring query tokens of one request, and the query heads of some neighbouring kv heads.
///
/// `query` and `output` point at the first of these heads in the first token; tokens are
/// `layer.num_heads()` heads apart. A token sees what the mask says, but for tokens whose page id
/// is out of range. `page_ids` has an entry for each page up to the last token's; those that no
/// token of the block sees are not read.
struct AttentionBlock {
  const std::byte* query;
  std::byte* output;
  const int32_t* page_ids;
  int64_t first_position;
  int64_t num_tokens;
  int64_t kv_head;  // the first
  int64_t num_kv_heads;

  int64_t end_position() const { return first_position + num_tokens; }
};

/// The steps of a block, for one instruction set. Rows are the query heads of all its tokens. All
/// are thread-safe: they write only the scratch or the state given to them, or the block's output.
struct AttentionKernel {
  /// Puts the queries of the block, scaled, into the scratch.
  void (*load_queries)(const AttentionLayer& layer, const AttentionBlock& block,
                       const AttentionScratch& scratch);
  /// Makes `state` what the rows get from the tokens of part `part`.
  void (*attend)(const AttentionLayer& layer, const AttentionBlock& block, int64_t part,
                 const AttentionScratch& scratch, const AttentionState& state);
  /// Adds to `state` what a later part came to.
  void (*merge)(const AttentionState& state, const AttentionState& later, int64_t num_rows);
  /// Writes the block's output. Changes the state.
  void (*finish)(const AttentionLayer& layer, const AttentionBlock& block,
                 const AttentionState& state);
};

/// Names of the instruction sets this CPU can run, the fastest first and "portable" last.
std::vector<std::string_view> attention_instruction_sets();

/// The kernel for an instruction set, or for "best"; null if this CPU cannot run it.
const AttentionKernel* find_attention_kernel(std::string_view instruction_set);

}  // namespace pagedkv
