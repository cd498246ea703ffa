#pragma once

#include <cstdint>
#include <string>

#include "pagedkv/pool/pool_counts.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// What a manager holds now, and what has happened since it was made.
struct ManagerStats {
  PageId num_held_pages = 0;                ///< Pages that a request holds now.
  std::int32_t num_requests = 0;            ///< Requests that hold pages now.
  std::int32_t peak_requests = 0;           ///< Most requests that held pages at a time.
  std::int64_t num_failed_allocations = 0;  ///< Times `allocate` or `fork` found too few pages.
  std::int64_t num_admitted = 0;            ///< Times `allocate` gave a request its first pages.
  std::int64_t num_query_tokens = 0;        ///< Tokens of those requests, with caching on.
  std::int64_t num_hit_tokens = 0;          ///< Those of them that came from the prefix cache.
  PoolCounts pool;
};

/// A request and how many pages it holds, in all groups.
struct Holding {
  std::string request_id;
  std::int32_t num_pages = 0;
};

}  // namespace pagedkv
