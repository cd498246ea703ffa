#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "pagedkv/spec/cache_spec.h"
#include "pagedkv/spec/dtype.h"

namespace pagedkv {

/// The rows a token leaves in a page, and how many tokens' there are.
struct AttentionLayout {
  /// Tokens a page holds.
  std::int32_t page_size;
  /// Rows of K a token has, and of V.
  std::int32_t num_kv_heads;
  /// Elements of a row of K.
  std::int32_t head_size;
  DType dtype;
  /// One latent row stands for K and V (multi-head latent attention): the same as
  /// `head_size_v == 0`.
  bool use_mla = false;
  /// Elements of a row of V: unless said, 0 with `use_mla` and `head_size` without.
  std::optional<std::int32_t> head_size_v = std::nullopt;
  /// Bytes a page is padded to.
  std::optional<std::int64_t> page_size_padded = std::nullopt;

  friend bool operator==(const AttentionLayout&, const AttentionLayout&) = default;
};

/// A layer that keeps K and V of tokens: per token, `num_kv_heads` rows of `head_size` elements
/// and as many of `head_size_v`.
class AttentionSpec : public CacheSpec {
 public:
  std::int32_t num_kv_heads() const { return layout_.num_kv_heads; }
  std::int32_t head_size() const { return layout_.head_size; }

  /// Elements of a row of V. 0 for a latent cache.
  std::int32_t head_size_v() const { return *layout_.head_size_v; }

  const DType& dtype() const { return layout_.dtype; }

  /// True iff `head_size_v() == 0`: one latent row stands for K and V.
  bool use_mla() const { return layout_.use_mla; }

  /// All of the above, with `use_mla` and `head_size_v` filled in.
  const AttentionLayout& layout() const { return layout_; }

 protected:
  /// `real_page_size_bytes() == page_size * num_kv_heads * (head_size + head_size_v) * bits / 8`.
  ///
  /// Throws `std::invalid_argument` unless every size is >= 1 (`head_size_v` >= 0, and 0 with
  /// `use_mla`), a page is whole bytes, and its bits fit in 63 bits.
  AttentionSpec(std::string_view spec, const AttentionLayout& layout);

  /// The layout with pages of `page_size` tokens, padded in proportion. Throws
  /// `std::invalid_argument` if that is no whole number of bytes.
  AttentionLayout layout_with(std::string_view spec, std::int32_t page_size) const;

 private:
  AttentionLayout layout_;
};

}  // namespace pagedkv
