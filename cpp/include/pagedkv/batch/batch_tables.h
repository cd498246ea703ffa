#pragma once

#include <cstdint>
#include <span>

#include "pagedkv/manager/cache_manager.h"
#include "pagedkv/types.h"

/// Arrays a jitted step needs, for a whole batch in one call.
namespace pagedkv {

/// Pages in the longest page table row of `requests`; 0 for none.
std::int32_t max_num_pages(const CacheManager& manager, std::span<const Request* const> requests,
                           GroupId group);

/// Fills row `i` of `table` with the page ids of `requests[i]`, then with `kNullPage`.
///
/// Requires `table.size() == requests.size() * width`. Throws `std::invalid_argument` if a row is
/// longer than `width`, and what `CacheManager::page_ids` throws.
void fill_page_table(const CacheManager& manager, std::span<const Request* const> requests,
                     GroupId group, std::int32_t width, std::span<PageId> table);

/// Sum of `num_tokens`, the slots that `fill_slot_mapping` makes.
///
/// Throws `std::invalid_argument` unless there is one count a request, each >= 0 and with room
/// for it after the computed tokens, and the sum fits in int32.
std::int32_t num_slots(const CacheManager& manager, std::span<const Request* const> requests,
                       std::span<const std::int32_t> num_tokens);

/// For each request in turn, the slots of its next `num_tokens[i]` tokens after the computed ones.
///
/// Requires `slots.size() == num_slots(manager, requests, num_tokens)`.
void fill_slot_mapping(const CacheManager& manager, std::span<const Request* const> requests,
                       std::span<const std::int32_t> num_tokens, GroupId group,
                       std::span<std::int32_t> slots);

/// Sum of `num_tokens`, the tokens that `fill_next_tokens` gives.
///
/// Throws `std::invalid_argument` unless there is one count a request, each >= 0 and no more than
/// the request has after its computed tokens, and the sum fits in int32.
std::int32_t num_next_tokens(std::span<const Request* const> requests,
                             std::span<const std::int32_t> num_tokens);

/// For each request in turn, its next `num_tokens[i]` tokens after the computed ones.
///
/// Requires `tokens.size() == num_next_tokens(requests, num_tokens)`.
void fill_next_tokens(std::span<const Request* const> requests,
                      std::span<const std::int32_t> num_tokens, std::span<TokenId> tokens);

}  // namespace pagedkv
