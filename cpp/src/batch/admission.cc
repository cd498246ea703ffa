#include "pagedkv/batch/admission.h"

#include <algorithm>
#include <limits>
#include <span>

#include "pagedkv/error.h"

namespace pagedkv {
namespace {

constexpr auto kOperation = "CacheManager.num_pages_needed";

void check(const CacheManager& manager, const Request& request, const Admission& admission) {
  if (request.is_allocated()) {
    throw_value_error(kOperation, "request '", request.request_id(), "' holds pages already");
  }
  if (admission.num_tokens < 1 || admission.num_tokens > manager.max_model_len()) {
    throw_value_error(kOperation, "num_tokens must be in [1, max_model_len ",
                      manager.max_model_len(), "], got ", admission.num_tokens, " for request '",
                      request.request_id(), "'");
  }
  if (admission.max_step_tokens < 1) {
    throw_value_error(kOperation, "max_step_tokens must be >= 1, got ", admission.max_step_tokens);
  }
  if (admission.num_cached_tokens < 0 || admission.num_cached_tokens > admission.num_tokens ||
      admission.num_cached_tokens % manager.prefix_unit() != 0) {
    throw_value_error(kOperation, "num_cached_tokens must be a multiple of prefix_unit ",
                      manager.prefix_unit(), " in [0, num_tokens ", admission.num_tokens, "], got ",
                      admission.num_cached_tokens);
  }
}

}  // namespace

std::int32_t num_pages_needed(const CacheManager& manager, Request& request,
                              const Admission& admission) {
  check(manager, request, admission);
  GroupPages prefix;
  const std::int32_t found =
      manager.find_again(request, admission.num_cached_tokens, kAnyShard, prefix);
  if (found < admission.num_cached_tokens) {
    throw_value_error(kOperation, "only ", found, " of the first ", admission.num_cached_tokens,
                      " tokens of request '", request.request_id(), "' are cached: match again");
  }
  const RequestLength length{admission.num_tokens, 0, request.num_encoder_tokens()};
  std::int64_t needed = 0;
  for (GroupId group = 0; group < manager.num_groups(); ++group) {
    const GroupPolicy& policy = manager.policy(group);
    const std::span<const PageId> row = prefix[static_cast<std::size_t>(group)];
    const auto num_skipped =
        static_cast<std::size_t>(policy.first_needed_page(admission.num_cached_tokens));
    const auto num_revived = std::ranges::count_if(
        row.subspan(std::min(num_skipped, row.size())),
        [&](PageId page) { return page != kNullPage && manager.pool().ref_count(page) == 0; });
    const std::int64_t num_pages = policy.num_pages_for(length);
    std::int64_t most_held = policy.max_held_pages(length, admission.max_step_tokens);
    if (manager.as_easydel() && policy.keeps_last_cached_page()) ++most_held;
    needed += std::clamp(num_pages - std::ssize(row) + num_revived, std::int64_t{0}, most_held);
  }
  return static_cast<std::int32_t>(
      std::min(needed, std::int64_t{std::numeric_limits<std::int32_t>::max()}));
}

}  // namespace pagedkv
