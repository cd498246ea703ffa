#include "pagedkv/spec/attention_spec.h"

#include "pagedkv/error.h"

namespace pagedkv {
namespace {

AttentionLayout filled_in(std::string_view spec, AttentionLayout layout) {
  if (!layout.head_size_v) layout.head_size_v = layout.use_mla ? 0 : layout.head_size;
  if (*layout.head_size_v < 0) {
    throw_value_error(spec, "head_size_v must be >= 0, got ", *layout.head_size_v);
  }
  if (layout.use_mla && *layout.head_size_v != 0) {
    throw_value_error(spec, "head_size_v must be 0 with use_mla, got ", *layout.head_size_v);
  }
  layout.use_mla = *layout.head_size_v == 0;
  return layout;
}

std::int64_t page_bytes(std::string_view spec, const AttentionLayout& layout) {
  check_at_least_one(spec, "page_size", layout.page_size);
  check_at_least_one(spec, "num_kv_heads", layout.num_kv_heads);
  check_at_least_one(spec, "head_size", layout.head_size);
  const AttentionLayout filled = filled_in(spec, layout);
  const std::int64_t row = std::int64_t{filled.head_size} + *filled.head_size_v;
  const std::int64_t token_bits =
      page_product(spec, row * filled.dtype.bits(), filled.num_kv_heads);
  const std::int64_t bits = page_product(spec, token_bits, filled.page_size);
  if (bits % 8 != 0) throw_value_error(spec, "a page must be whole bytes, got ", bits, " bits");
  return bits / 8;
}

}  // namespace

AttentionSpec::AttentionSpec(std::string_view spec, const AttentionLayout& layout)
    : CacheSpec(spec, layout.page_size, page_bytes(spec, layout), layout.page_size_padded),
      layout_(filled_in(spec, layout)) {}

AttentionLayout AttentionSpec::layout_with(std::string_view spec, std::int32_t page_size) const {
  check_at_least_one(spec, "page_size", page_size);
  AttentionLayout layout = layout_;
  layout.page_size = page_size;
  if (!layout.page_size_padded) return layout;
  const std::int64_t scaled = page_product(spec, *layout.page_size_padded, page_size);
  if (scaled % layout_.page_size != 0) {
    throw_value_error(spec, "page_size_padded ", *layout.page_size_padded, " of ",
                      layout_.page_size, " tokens gives no whole bytes for ", page_size);
  }
  layout.page_size_padded = scaled / layout_.page_size;
  return layout;
}

}  // namespace pagedkv
