#include "pagedkv/spec/cache_spec.h"

#include "pagedkv/error.h"
#include "pagedkv/math.h"

namespace pagedkv {
namespace {

void check_limit(const char* what, std::int64_t value) {
  if (value < 0) {
    throw_value_error("max_memory_usage_bytes", what, " must be >= 0, got ", value);
  }
}

}  // namespace

CacheSpec::CacheSpec(std::string_view spec, std::int32_t page_size,
                     std::int64_t real_page_size_bytes,
                     std::optional<std::int64_t> page_size_padded)
    : page_size_(page_size),
      real_page_size_bytes_(real_page_size_bytes),
      page_size_padded_(page_size_padded) {
  check_at_least_one(spec, "page_size", page_size);
  if (page_size_padded && *page_size_padded < real_page_size_bytes) {
    throw_value_error(spec, "page_size_padded must be >= ", real_page_size_bytes,
                      ", the bytes of a page, got ", *page_size_padded);
  }
}

std::int64_t CacheSpec::max_memory_usage_bytes(const RequestLimits& limits) const {
  check_limit("max_model_len", limits.max_model_len);
  check_limit("max_num_batched_tokens", limits.max_num_batched_tokens);
  check_limit("max_encoder_tokens", limits.max_encoder_tokens);
  const auto bytes = checked_mul(max_pages_per_request(limits), page_size_bytes());
  if (!bytes) throw_value_error("max_memory_usage_bytes", "a request takes more than 2^63 bytes");
  return *bytes;
}

void check_at_least_one(std::string_view spec, std::string_view what, std::int64_t value) {
  if (value < 1) throw_value_error(spec, what, " must be >= 1, got ", value);
}

std::int64_t page_product(std::string_view spec, std::int64_t a, std::int64_t b) {
  const auto product = checked_mul(a, b);
  if (!product) throw_value_error(spec, "a page is larger than 2^63 bits");
  return *product;
}

void check_mergeable(std::string_view spec, const CacheSpec& a, const CacheSpec& b) {
  if (a.type_id() != b.type_id()) {
    throw_value_error(spec, "layers of a group must have one type_id, got ", a.type_id(), " and ",
                      b.type_id());
  }
  if (a.page_size() != b.page_size()) {
    throw_value_error(spec, "layers of a group must have one page_size, got ", a.page_size(),
                      " and ", b.page_size());
  }
  if (a.page_size_bytes() != b.page_size_bytes()) {
    throw_value_error(spec, "layers of a group must have one page_size_bytes, got ",
                      a.page_size_bytes(), " and ", b.page_size_bytes());
  }
}

}  // namespace pagedkv
