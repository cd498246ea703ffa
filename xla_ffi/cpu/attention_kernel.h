#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

/// Attention of a few query rows over the pages of one request, without any XLA in it.
///
/// One template, compiled for several instruction sets; which one runs is decided at run time. A
/// row's result depends on its own query and context alone, not on the rows beside it: how a batch
/// is cut into blocks changes no bit. Between instruction sets the last bits differ.
namespace pagedkv {

/// Elements of queries, pages and outputs. Sums are float32 whatever it is.
enum class AttentionDType { kFloat32, kBfloat16 };

/// One layer of the pools: `[num_pages, page_size, num_kv_heads, dim]`, keys and values.
struct AttentionLayer {
  const std::byte* keys;
  const std::byte* values;
  AttentionDType dtype;
  int64_t num_pages;
  int64_t page_size;
  int64_t num_kv_heads;
  int64_t key_dim;
  int64_t value_dim;
};

/// Neighbouring query tokens of one request, and the query heads of some neighbouring kv heads.
///
/// `query` and `output` point at the first of these heads in the first token; tokens are
/// `layer.num_kv_heads * group_size` heads apart. The token at position `p` sees positions
/// `(p - window, p]`, but for those whose page id is out of range. `page_ids` has an entry for each
/// page up to the last token's; those that no token of the block sees are not read.
struct AttentionBlock {
  const std::byte* query;
  std::byte* output;
  const int32_t* page_ids;
  int64_t first_position;
  int64_t num_tokens;
  int64_t kv_head;  // the first
  int64_t num_kv_heads;
  int64_t group_size;  // query heads of a kv head
  int64_t window;      // at least 1
  float scale;

  int64_t num_rows() const { return num_tokens * num_kv_heads * group_size; }
  int64_t first_visible() const { return std::max<int64_t>(0, first_position - window + 1); }
};

/// Computes one block. Thread-safe: writes only `block.output`, and `scratch`, which has
/// `attention_scratch_bytes()` aligned to `kAttentionScratchAlignment`.
using AttendBlock = void (*)(const AttentionLayer& layer, const AttentionBlock& block,
                             float* scratch);

inline constexpr size_t kAttentionScratchAlignment = 64;

/// Scratch that a block of at most `num_rows` rows needs, or nothing if it is beyond counting.
std::optional<size_t> attention_scratch_bytes(const AttentionLayer& layer, int64_t num_rows);

/// Names of the instruction sets this CPU can run, the fastest first and "portable" last.
std::vector<std::string_view> attention_instruction_sets();

/// The kernel for an instruction set, or for "best"; null if this CPU cannot run it.
AttendBlock find_attention_kernel(std::string_view instruction_set);

}  // namespace pagedkv
