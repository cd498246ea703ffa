#pragma once

#include <memory>

#include "pagedkv/watch/event_log.h"
#include "pagedkv/watch/page_residency.h"

namespace pagedkv {

/// What a pool tells of its pages as they change hands, where somebody asked. A pool without one
/// pays a comparison with null.
struct PageWatch {
  std::unique_ptr<EventLog> events;          ///< Null: not asked for.
  std::unique_ptr<PageResidency> residency;  ///< Null: not asked for.
};

}  // namespace pagedkv
