#include "pagedkv/spec/cache_spec.h"

#include <optional>
#include <utility>

#include "pagedkv/error.h"
#include "pagedkv/math.h"

namespace pagedkv {
namespace {

void check_at_least_one(const char* what, std::int32_t value) {
  if (value < 1) throw_value_error("CacheSpec", what, " must be >= 1, got ", value);
}

std::int64_t product_of(std::initializer_list<std::int64_t> factors) {
  std::optional<std::int64_t> product = 1;
  for (std::int64_t factor : factors) {
    product = checked_mul(*product, factor);
    if (!product) throw_value_error("CacheSpec", "a page is larger than 2^63 bits");
  }
  return *product;
}

}  // namespace

CacheSpec::CacheSpec(std::int32_t page_size) : page_size_(page_size) {
  check_at_least_one("page_size", page_size);
}

AttentionSpec::AttentionSpec(std::int32_t page_size, std::int32_t num_kv_heads,
                             std::int32_t head_size, DType dtype, bool use_mla)
    : CacheSpec(page_size),
      num_kv_heads_(num_kv_heads),
      head_size_(head_size),
      dtype_(std::move(dtype)),
      use_mla_(use_mla) {
  check_at_least_one("num_kv_heads", num_kv_heads);
  check_at_least_one("head_size", head_size);
  const std::int64_t bits =
      product_of({page_size, num_kv_heads, head_size, dtype_.bits(), use_mla ? 1 : 2});
  if (bits % 8 != 0) {
    throw_value_error("CacheSpec", "a page must be whole bytes, got ", bits, " bits");
  }
  page_size_bytes_ = bits / 8;
}

}  // namespace pagedkv
