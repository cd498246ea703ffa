#pragma once

#include <cstdint>

#include "pagedkv/types.h"

namespace pagedkv {

/// What has happened to the pages of a pool since it was made.
///
/// Invariant: `num_allocated + num_reused - num_freed` pages are held now.
struct PoolCounts {
  std::int64_t num_allocated = 0;  ///< Times a free page was handed out empty.
  std::int64_t num_reused = 0;     ///< Times a free page was held again for what it contains.
  std::int64_t num_freed = 0;      ///< Times the last holder gave a page back.
  std::int64_t num_cached = 0;     ///< Times a page was made findable by who computed it.
  std::int64_t num_evicted = 0;    ///< Times a page lost its content because it was handed out.
  PageId peak_held = 0;            ///< Most pages that were held at a time.
};

}  // namespace pagedkv
