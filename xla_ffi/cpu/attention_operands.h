#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "attention_kernel.h"
#include "checks.h"
#include "kv_layout.h"
#include "scale_layout.h"

/// What paged_attention asks of its operands.
namespace pagedkv {

/// The operands of a call.
struct AttentionOperands {
  const ffi::AnyBuffer& query;
  const ffi::AnyBuffer& page_table;
  const ffi::AnyBuffer& query_starts;
  const ffi::AnyBuffer& context_lens;
  const ffi::AnyBuffer& layer;
  const ffi::AnyBuffer& window;
  const ffi::AnyBuffer& chunk;
  const ffi::AnyBuffer& num_sink_tokens;
  const ffi::AnyBuffer& sinks;
  std::span<const ffi::AnyBuffer> pools;
  std::span<const ffi::AnyBuffer> scales;  // one for each pool, or none
  const ffi::AnyBuffer& output;
  const ffi::AnyBuffer& num_dropped;
};

/// Operands that fit together: where everything is, but for the batch and layer in hand.
struct CheckedAttention {
  std::array<PoolGeometry, 2> pools;    // keys and values; the same where they share one
  std::array<ScaleGeometry, 2> scales;  // likewise, of codes
  std::array<int64_t, 2> first;         // byte of the row of head 0 in its token
  AttentionLayer layer;                 // its pointers are null
  int64_t num_tokens;
  int64_t num_requests;
  int64_t width;
};

/// Fails unless dtypes and shapes fit together and to a group of `group_size` query heads for each
/// kv head. All operands may have batch axes that broadcast to those of `num_dropped`.
ffi::ErrorOr<CheckedAttention> check_attention(std::string_view operation,
                                               const AttentionOperands& operands,
                                               const KvLayout& layout, bool layered,
                                               int64_t group_size);

}  // namespace pagedkv
