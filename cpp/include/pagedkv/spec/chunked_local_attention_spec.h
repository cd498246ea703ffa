#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "pagedkv/math.h"
#include "pagedkv/spec/attention_spec.h"

namespace pagedkv {

/// Pages that one chunk of computed tokens and the tokens of a step fill at most.
constexpr std::int64_t max_chunk_pages(std::int64_t chunk_size, std::int64_t page_size,
                                       const RequestLimits& limits) {
  const std::int64_t live = saturating_add(chunk_size, limits.max_num_batched_tokens);
  return ceil_div(std::min(live, limits.max_model_len), page_size);
}

/// A layer whose attention sees the tokens of its own chunk: token `t` those from
/// `t / attention_chunk_size * attention_chunk_size` on.
class ChunkedLocalAttentionSpec final : public AttentionSpec {
 public:
  static constexpr std::string_view kName = "ChunkedLocalAttentionSpec";

  /// Throws `std::invalid_argument` as `AttentionSpec` does, and unless
  /// `attention_chunk_size >= 1`.
  ChunkedLocalAttentionSpec(const AttentionLayout& layout, std::int32_t attention_chunk_size);

  /// Tokens of a chunk.
  std::int32_t attention_chunk_size() const { return attention_chunk_size_; }

  /// "local_attention_{attention_chunk_size}_{page_size}_{page_size_bytes}".
  std::string type_id() const override;
  std::string_view kind() const override { return "chunked_local_attention"; }

  /// `max_chunk_pages`.
  std::int64_t max_pages_per_request(const RequestLimits& limits) const override {
    return max_chunk_pages(attention_chunk_size_, page_size(), limits);
  }

  /// The spec of a group whose layers have `specs`. Throws `std::invalid_argument` if there are
  /// none, or two differ in `type_id()`.
  static ChunkedLocalAttentionSpec merge(std::span<const ChunkedLocalAttentionSpec> specs);

  /// The same with `page_size` tokens a page; padding grows in proportion.
  ChunkedLocalAttentionSpec copy_with_new_page_size(std::int32_t page_size) const;

  friend bool operator==(const ChunkedLocalAttentionSpec& a, const ChunkedLocalAttentionSpec& b) {
    return a.layout() == b.layout() && a.attention_chunk_size_ == b.attention_chunk_size_;
  }

 private:
  std::int32_t attention_chunk_size_;
};

}  // namespace pagedkv
