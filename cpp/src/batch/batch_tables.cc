#include "pagedkv/batch/batch_tables.h"

#include <algorithm>
#include <limits>

#include "pagedkv/batch/step.h"
#include "pagedkv/error.h"
#include "pagedkv/math.h"

namespace pagedkv {

std::int32_t max_num_pages(const CacheManager& manager, std::span<const Request* const> requests,
                           GroupId group) {
  std::size_t longest = 0;
  for (const Request* request : requests) {
    longest = std::max(longest, manager.page_ids(*request, group).size());
  }
  return static_cast<std::int32_t>(longest);
}

void fill_page_table(const CacheManager& manager, std::span<const Request* const> requests,
                     GroupId group, std::int32_t width, std::span<PageId> table) {
  auto out = table.begin();
  for (const Request* request : requests) {
    const auto pages = manager.page_ids(*request, group);
    if (std::cmp_greater(pages.size(), width)) {
      throw_value_error("CacheManager.page_table", "request '", request->request_id(), "' has ",
                        pages.size(), " pages, width is ", width);
    }
    const auto end = out + width;
    std::fill(std::ranges::copy(pages, out).out, end, kNullPage);
    out = end;
  }
}

std::int32_t num_slots(const CacheManager& manager, std::span<const Request* const> requests,
                       std::span<const std::int32_t> num_tokens) {
  constexpr auto kOperation = "CacheManager.slot_mapping";
  if (requests.size() != num_tokens.size()) {
    throw_value_error(kOperation, "needs one token count a request, got ", num_tokens.size(),
                      " for ", requests.size(), " requests");
  }
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const Request& request = *requests[i];
    const std::int32_t room = manager.num_allocated_tokens(request) - request.num_computed_tokens();
    if (num_tokens[i] < 0 || num_tokens[i] > room) {
      throw_value_error(kOperation, "request '", request.request_id(), "' has room for ", room,
                        " more tokens, got ", num_tokens[i]);
    }
    sum += num_tokens[i];
  }
  if (sum > std::numeric_limits<std::int32_t>::max()) {
    throw_value_error(kOperation, sum, " slots do not fit in int32");
  }
  return static_cast<std::int32_t>(sum);
}

void fill_slot_mapping(const CacheManager& manager, std::span<const Request* const> requests,
                       std::span<const std::int32_t> num_tokens, GroupId group,
                       std::span<std::int32_t> slots) {
  const GroupPolicy& policy = manager.policy(group);
  if (!policy.has_slots()) {
    throw_value_error("CacheManager.slot_mapping", "group ", group,
                      " keeps no K/V of the tokens, so they have no slots");
  }
  const std::int32_t page_size = policy.page_size();
  const Divisor page_of(page_size);
  auto out = slots.begin();
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const auto pages = manager.page_ids(*requests[i], group);
    const std::int32_t first = requests[i]->num_computed_tokens();
    const std::int32_t first_page = page_of.quotient(first);
    std::int32_t offset = first - first_page * page_size;
    auto page = pages.begin() + first_page;
    if (num_tokens[i] == 1) {  // as a request that decodes has
      *out++ = *page * page_size + offset;
      continue;
    }
    for (std::int32_t left = num_tokens[i]; left > 0; ++page, offset = 0) {
      const std::int32_t end = std::min(page_size, offset + left);
      left -= end - offset;
      for (; offset < end; ++offset) *out++ = *page * page_size + offset;
    }
  }
}

std::int32_t num_next_tokens(std::span<const Request* const> requests,
                             std::span<const std::int32_t> num_tokens) {
  constexpr auto kOperation = "CacheManager.next_tokens";
  check_one_each(kOperation, "num_tokens", num_tokens.size(), requests.size());
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const Request& request = *requests[i];
    const std::int32_t left = request.num_tokens() - request.num_computed_tokens();
    if (num_tokens[i] < 0 || num_tokens[i] > left) {
      throw_value_error(kOperation, "request '", request.request_id(), "' has ", left,
                        " tokens to compute, got ", num_tokens[i]);
    }
    sum += num_tokens[i];
  }
  if (sum > std::numeric_limits<std::int32_t>::max()) {
    throw_value_error(kOperation, sum, " tokens do not fit in int32");
  }
  return static_cast<std::int32_t>(sum);
}

void fill_next_tokens(std::span<const Request* const> requests,
                      std::span<const std::int32_t> num_tokens, std::span<TokenId> tokens) {
  auto out = tokens.begin();
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const auto first = static_cast<std::size_t>(requests[i]->num_computed_tokens());
    const auto count = static_cast<std::size_t>(num_tokens[i]);
    out = std::ranges::copy(requests[i]->tokens().subspan(first, count), out).out;
  }
}

}  // namespace pagedkv
