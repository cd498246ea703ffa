#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "pagedkv/spec/attention_spec.h"

namespace pagedkv {

/// A layer whose attention sees every earlier token: all K/V is kept.
///
/// It may also say that the layer *computes* with a window or in chunks, while its pages are kept
/// as for full attention: what engines do whose allocator knows one kind of group only.
class FullAttentionSpec : public AttentionSpec {
 public:
  static constexpr std::string_view kName = "FullAttentionSpec";

  /// Throws `std::invalid_argument` as `AttentionSpec` does, and unless a window and a chunk, if
  /// given, are >= 1.
  explicit FullAttentionSpec(const AttentionLayout& layout,
                             std::optional<std::int32_t> sliding_window = std::nullopt,
                             std::optional<std::int32_t> attention_chunk_size = std::nullopt)
      : FullAttentionSpec(kName, layout, sliding_window, attention_chunk_size) {}

  FullAttentionSpec(std::int32_t page_size, std::int32_t num_kv_heads, std::int32_t head_size,
                    DType dtype)
      : FullAttentionSpec({.page_size = page_size,
                           .num_kv_heads = num_kv_heads,
                           .head_size = head_size,
                           .dtype = std::move(dtype)}) {}

  /// Tokens the layer's attention sees, if it computes with a window.
  std::optional<std::int32_t> sliding_window() const { return sliding_window_; }

  /// Tokens of the chunks the layer's attention sees, if it computes in chunks.
  std::optional<std::int32_t> attention_chunk_size() const { return attention_chunk_size_; }

  /// "full_attention_{page_size}_{page_size_bytes}".
  std::string type_id() const override;

  /// "mla_attention" for a latent cache, else "full_attention".
  std::string_view kind() const override { return use_mla() ? "mla_attention" : "full_attention"; }

  /// Pages of `max_model_len` tokens.
  std::int64_t max_pages_per_request(const RequestLimits& limits) const override;

  /// The one window (or chunk) size of a group's layers, where `sizes` are those that are set.
  ///
  /// Throws `std::invalid_argument` if they differ.
  static std::optional<std::int32_t> merge_window_sizes(std::span<const std::int32_t> sizes);

  /// The spec of a group whose layers have `specs`: the first, with the window and the chunk size
  /// that any of them has.
  ///
  /// Throws `std::invalid_argument` if `specs` is empty, if two differ in `type_id()`, window or
  /// chunk size, or if some have a window and some a chunk size.
  static FullAttentionSpec merge(std::span<const FullAttentionSpec> specs);

  /// The same with `page_size` tokens a page; padding grows in proportion.
  FullAttentionSpec copy_with_new_page_size(std::int32_t page_size) const;

  friend bool operator==(const FullAttentionSpec& a, const FullAttentionSpec& b) {
    return a.layout() == b.layout() && a.sliding_window_ == b.sliding_window_ &&
           a.attention_chunk_size_ == b.attention_chunk_size_;
  }

 protected:
  FullAttentionSpec(std::string_view spec, const AttentionLayout& layout,
                    std::optional<std::int32_t> sliding_window,
                    std::optional<std::int32_t> attention_chunk_size);

 private:
  std::optional<std::int32_t> sliding_window_;
  std::optional<std::int32_t> attention_chunk_size_;
};

}  // namespace pagedkv
