#pragma once

#include <cstdint>

#include "pagedkv/manager/cache_manager.h"
#include "pagedkv/types.h"

/// What a scheduler asks before it starts a request.
namespace pagedkv {

/// How far a request is to be computed.
struct Admission {
  std::int32_t num_tokens = 0;         ///< From its first one on; more than it has yet will do.
  std::int32_t num_cached_tokens = 0;  ///< Of those, its prefix from the cache.
  std::int32_t max_step_tokens = 0;    ///< Most tokens that a step computes.
};

/// Free pages that are enough to start `request`, which holds none, and go on until its first
/// `num_tokens` tokens are computed. Pages of its prefix that other requests hold cost none, those
/// that only wait to be evicted do. Windows and chunks count with the most they hold at a time.
///
/// The idea is vLLM's (`full_sequence_must_fit` of `KVCacheManager.allocate_slots`). Changes
/// nothing but the digests of `request`.
///
/// Throws `std::invalid_argument` if the request holds pages; unless `1 <= num_tokens <=
/// max_model_len` and `max_step_tokens >= 1`; if `num_cached_tokens` is not a multiple of
/// `prefix_unit()`, is more than `num_tokens`, or more than is cached; for extra keys that the
/// hasher cannot take, if there is a prefix.
std::int32_t num_pages_needed(const CacheManager& manager, Request& request,
                              const Admission& admission);

}  // namespace pagedkv
