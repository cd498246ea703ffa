#include "pagedkv/spec/full_attention_spec.h"

#include <vector>

#include "pagedkv/error.h"
#include "pagedkv/math.h"
#include "pagedkv/spec/merge.h"

namespace pagedkv {

FullAttentionSpec::FullAttentionSpec(std::string_view spec, const AttentionLayout& layout,
                                     std::optional<std::int32_t> sliding_window,
                                     std::optional<std::int32_t> attention_chunk_size)
    : AttentionSpec(spec, layout),
      sliding_window_(sliding_window),
      attention_chunk_size_(attention_chunk_size) {
  if (sliding_window) check_at_least_one(spec, "sliding_window", *sliding_window);
  if (attention_chunk_size) check_at_least_one(spec, "attention_chunk_size", *attention_chunk_size);
}

std::string FullAttentionSpec::type_id() const {
  return "full_attention_" + std::to_string(page_size()) + "_" + std::to_string(page_size_bytes());
}

std::int64_t FullAttentionSpec::max_pages_per_request(const RequestLimits& limits) const {
  return ceil_div(limits.max_model_len, std::int64_t{page_size()});
}

std::optional<std::int32_t> FullAttentionSpec::merge_window_sizes(
    std::span<const std::int32_t> sizes) {
  for (std::int32_t size : sizes) {
    if (size != sizes.front()) {
      throw_value_error(kName, "layers of a group must have one window size, got ", sizes.front(),
                        " and ", size);
    }
  }
  return sizes.empty() ? std::nullopt : std::optional(sizes.front());
}

FullAttentionSpec FullAttentionSpec::merge(std::span<const FullAttentionSpec> specs) {
  const FullAttentionSpec& first = first_if_mergeable(specs);
  std::vector<std::int32_t> windows;
  std::vector<std::int32_t> chunks;
  for (const FullAttentionSpec& spec : specs) {
    if (spec.sliding_window_) windows.push_back(*spec.sliding_window_);
    if (spec.attention_chunk_size_) chunks.push_back(*spec.attention_chunk_size_);
  }
  const auto window = merge_window_sizes(windows);
  const auto chunk = merge_window_sizes(chunks);
  if (window && chunk) {
    throw_value_error(kName, "layers of a group cannot have both a sliding_window (", *window,
                      ") and an attention_chunk_size (", *chunk, ")");
  }
  return FullAttentionSpec(first.layout(), window, chunk);
}

FullAttentionSpec FullAttentionSpec::copy_with_new_page_size(std::int32_t page_size) const {
  return FullAttentionSpec(layout_with(kName, page_size), sliding_window_, attention_chunk_size_);
}

}  // namespace pagedkv
