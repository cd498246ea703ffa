#pragma once

#include <cstdint>

#include "host_device.h"
#include "id_range.h"

/// What kernels do with ids, which no host has seen.
namespace pagedkv::cuda {

/// Whether a later id is equal to `ids[index]`. Where it is, the later row is the one to write.
template <typename Group>
PAGEDKV_DEVICE bool is_overwritten(const Group& group, const int32_t* ids, int64_t num_ids,
                                   int64_t index) {
  const int32_t id = ids[index];
  return group.any(num_ids - index - 1, [&](int64_t i) { return ids[index + 1 + i] == id; });
}

/// Writes how many of the ids are out of range, padding aside.
template <typename Group>
PAGEDKV_DEVICE void write_num_dropped(const Group& group, const int32_t* ids, int64_t num_ids,
                                      int64_t size, int32_t* num_dropped) {
  const int32_t found = group.count(
      num_ids, [&](int64_t i) { return ids[i] != kPadding && !in_range(ids[i], size); });
  if (group.is_first()) *num_dropped = found;
}

}  // namespace pagedkv::cuda
