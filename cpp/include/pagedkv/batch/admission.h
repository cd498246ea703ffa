#pragma once

#include <cstdint>

#include "pagedkv/manager/cache_manager.h"
#include "pagedkv/policy/group_policy.h"

/// What a scheduler asks before it takes a request on.
namespace pagedkv {

/// Most pages that a request holds at a time, in all groups, until `length` is computed in steps of
/// at most `max_new_tokens` tokens. One that has the pool to itself, and as many pages, always gets
/// room.
///
/// Throws `std::invalid_argument` unless `1 <= length.num_tokens <= max_model_len()`,
/// `max_new_tokens >= 1` and the other lengths are >= 0.
std::int64_t max_pages_per_request(const CacheManager& manager, const RequestLength& length,
                                   std::int32_t max_new_tokens);

}  // namespace pagedkv
