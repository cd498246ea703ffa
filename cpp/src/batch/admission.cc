#include "pagedkv/batch/admission.h"

#include <algorithm>

#include "pagedkv/error.h"

namespace pagedkv {

std::int64_t max_pages_per_request(const CacheManager& manager, const RequestLength& length,
                                   std::int32_t max_new_tokens) {
  constexpr auto kOperation = "CacheManager.max_pages_per_request";
  const auto check = [&](const char* name, std::int32_t value, std::int32_t minimum) {
    if (value >= minimum) return;
    throw_value_error(kOperation, name, " must be >= ", minimum, ", got ", value);
  };
  check("num_tokens", length.num_tokens, 1);
  check("max_new_tokens", max_new_tokens, 1);
  check("num_lookahead_tokens", length.num_lookahead_tokens, 0);
  check("num_encoder_tokens", length.num_encoder_tokens, 0);
  if (length.num_tokens > manager.max_model_len()) {
    throw_value_error(kOperation, "num_tokens must be <= max_model_len ", manager.max_model_len(),
                      ", got ", length.num_tokens);
  }
  RequestLength clamped = length;
  clamped.num_lookahead_tokens =
      std::min(length.num_lookahead_tokens, manager.max_model_len() - length.num_tokens);
  std::int64_t num_pages = 0;
  for (GroupId group = 0; group < manager.num_groups(); ++group) {
    const GroupPolicy& policy = manager.policy(group);
    num_pages += policy.max_num_pages(clamped, max_new_tokens);
    if (manager.as_easydel() && policy.keeps_last_cached_page()) ++num_pages;
  }
  return num_pages;
}

}  // namespace pagedkv
