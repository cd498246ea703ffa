#pragma once

#include <cstdint>

#include "host_device.h"

namespace pagedkv {

/// The id that stands for "nothing here" and is never reported.
inline constexpr int32_t kPadding = -1;

/// `0 <= id < size`, as one compare: a negative id becomes a huge unsigned one.
/// Requires `size >= 0`.
PAGEDKV_HOST_DEVICE constexpr bool in_range(int32_t id, int64_t size) {
  return static_cast<uint64_t>(static_cast<int64_t>(id)) < static_cast<uint64_t>(size);
}

static_assert(in_range(0, 1) && !in_range(1, 1) && !in_range(-1, 1) && !in_range(0, 0));

}  // namespace pagedkv
