#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "pagedkv/spec/attention_spec.h"

namespace pagedkv {

/// A layer that attends to an encoder's output, whose K/V is kept as long as the request lives.
class CrossAttentionSpec final : public AttentionSpec {
 public:
  static constexpr std::string_view kName = "CrossAttentionSpec";

  /// Throws `std::invalid_argument` as `AttentionSpec` does.
  explicit CrossAttentionSpec(const AttentionLayout& layout) : AttentionSpec(kName, layout) {}

  /// "cross_attention_{page_size}_{page_size_bytes}".
  std::string type_id() const override;
  std::string_view kind() const override { return "cross_attention"; }

  /// Pages of `max_encoder_tokens` tokens, however many the decoder has.
  std::int64_t max_pages_per_request(const RequestLimits& limits) const override;

  /// The spec of a group whose layers have `specs`. Throws `std::invalid_argument` if there are
  /// none, or two differ in `type_id()`.
  static CrossAttentionSpec merge(std::span<const CrossAttentionSpec> specs);

  /// The same with `page_size` tokens a page; padding grows in proportion.
  CrossAttentionSpec copy_with_new_page_size(std::int32_t page_size) const;

  friend bool operator==(const CrossAttentionSpec& a, const CrossAttentionSpec& b) {
    return a.layout() == b.layout();
  }
};

}  // namespace pagedkv
