#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "pagedkv/spec/full_attention_spec.h"

namespace pagedkv {

/// Full attention whose first `sink_len` tokens, the attention sink, stay for every request.
///
/// The idea and the name are vLLM's `SinkFullAttentionSpec`.
class SinkFullAttentionSpec final : public FullAttentionSpec {
 public:
  static constexpr std::string_view kName = "SinkFullAttentionSpec";

  /// Throws `std::invalid_argument` as `FullAttentionSpec` does, and unless `sink_len` is a
  /// positive multiple of `page_size`: the sink has pages of its own.
  SinkFullAttentionSpec(const AttentionLayout& layout, std::int32_t sink_len,
                        std::optional<std::int32_t> sliding_window = std::nullopt,
                        std::optional<std::int32_t> attention_chunk_size = std::nullopt);

  /// Tokens at the start that attention always sees.
  std::int32_t sink_len() const { return sink_len_; }

  /// "sink_full_attention_{sink_len}_{page_size}_{page_size_bytes}".
  std::string type_id() const override;
  std::string_view kind() const override { return "sink_full_attention"; }

  /// As `FullAttentionSpec::merge`; the sinks must be as long.
  static SinkFullAttentionSpec merge(std::span<const SinkFullAttentionSpec> specs);

  /// The same with `page_size` tokens a page; padding grows in proportion.
  SinkFullAttentionSpec copy_with_new_page_size(std::int32_t page_size) const;

  friend bool operator==(const SinkFullAttentionSpec& a, const SinkFullAttentionSpec& b) {
    return static_cast<const FullAttentionSpec&>(a) == b && a.sink_len_ == b.sink_len_;
  }

 private:
  std::int32_t sink_len_;
};

}  // namespace pagedkv
