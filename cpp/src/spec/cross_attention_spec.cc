#include "pagedkv/spec/cross_attention_spec.h"

#include "pagedkv/math.h"
#include "pagedkv/spec/merge.h"

namespace pagedkv {

std::string CrossAttentionSpec::type_id() const {
  return "cross_attention_" + std::to_string(page_size()) + "_" + std::to_string(page_size_bytes());
}

std::int64_t CrossAttentionSpec::max_pages_per_request(const RequestLimits& limits) const {
  return ceil_div(limits.max_encoder_tokens, std::int64_t{page_size()});
}

CrossAttentionSpec CrossAttentionSpec::merge(std::span<const CrossAttentionSpec> specs) {
  return first_if_mergeable(specs);
}

CrossAttentionSpec CrossAttentionSpec::copy_with_new_page_size(std::int32_t page_size) const {
  return CrossAttentionSpec(layout_with(kName, page_size));
}

}  // namespace pagedkv
