#include "pagedkv/spec/chunked_local_attention_spec.h"

#include "pagedkv/spec/merge.h"

namespace pagedkv {

ChunkedLocalAttentionSpec::ChunkedLocalAttentionSpec(const AttentionLayout& layout,
                                                     std::int32_t attention_chunk_size)
    : AttentionSpec(kName, layout), attention_chunk_size_(attention_chunk_size) {
  check_at_least_one(kName, "attention_chunk_size", attention_chunk_size);
}

std::string ChunkedLocalAttentionSpec::type_id() const {
  return "local_attention_" + std::to_string(attention_chunk_size_) + "_" +
         std::to_string(page_size()) + "_" + std::to_string(page_size_bytes());
}

ChunkedLocalAttentionSpec ChunkedLocalAttentionSpec::merge(
    std::span<const ChunkedLocalAttentionSpec> specs) {
  return first_if_mergeable(specs);
}

ChunkedLocalAttentionSpec ChunkedLocalAttentionSpec::copy_with_new_page_size(
    std::int32_t page_size) const {
  return ChunkedLocalAttentionSpec(layout_with(kName, page_size), attention_chunk_size_);
}

}  // namespace pagedkv
