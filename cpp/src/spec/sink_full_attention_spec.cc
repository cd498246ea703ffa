#include "pagedkv/spec/sink_full_attention_spec.h"

#include <vector>

#include "pagedkv/error.h"
#include "pagedkv/spec/merge.h"

namespace pagedkv {

SinkFullAttentionSpec::SinkFullAttentionSpec(const AttentionLayout& layout, std::int32_t sink_len,
                                             std::optional<std::int32_t> sliding_window,
                                             std::optional<std::int32_t> attention_chunk_size)
    : FullAttentionSpec(kName, layout, sliding_window, attention_chunk_size), sink_len_(sink_len) {
  check_at_least_one(kName, "sink_len", sink_len);
  if (sink_len % page_size() != 0) {
    throw_value_error(kName, "sink_len must be a multiple of page_size ", page_size(), ", got ",
                      sink_len);
  }
}

std::string SinkFullAttentionSpec::type_id() const {
  return "sink_full_attention_" + std::to_string(sink_len_) + "_" + std::to_string(page_size()) +
         "_" + std::to_string(page_size_bytes());
}

SinkFullAttentionSpec SinkFullAttentionSpec::merge(std::span<const SinkFullAttentionSpec> specs) {
  const std::int32_t sink_len = first_if_mergeable(specs).sink_len_;
  const std::vector<FullAttentionSpec> bases(specs.begin(), specs.end());
  const FullAttentionSpec merged = FullAttentionSpec::merge(bases);
  return SinkFullAttentionSpec(merged.layout(), sink_len, merged.sliding_window(),
                               merged.attention_chunk_size());
}

SinkFullAttentionSpec SinkFullAttentionSpec::copy_with_new_page_size(std::int32_t page_size) const {
  return SinkFullAttentionSpec(layout_with(kName, page_size), sink_len_, sliding_window(),
                               attention_chunk_size());
}

}  // namespace pagedkv
