#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "batch_map.h"
#include "checks.h"
#include "device.h"
#include "ids.h"

/// What the handlers for CUDA have in common: shapes are checked on the host, ids on the device.
namespace pagedkv::cuda {

/// A failure that the device reports, if there is one.
inline ffi::Error device_error(std::string_view operation, const char* text) {
  if (text == nullptr) return ffi::Error::Success();
  return ffi::Error(ffi::ErrorCode::kInternal, error_message(operation, "CUDA: ", text));
}

/// Fails unless the mode is known. The ids are on the device, so "raise" drops as "drop" does.
inline ffi::Error check_mode(std::string_view operation, std::string_view name) {
  return parse_mode(name) ? ffi::Error::Success() : unknown_mode(operation, name);
}

/// XLA hands in the same memory for an aliased operand and result. Where it does not, the rest of
/// the pool, `num_bytes` of it, must come along.
inline ffi::Error carry_over(std::string_view operation, DeviceStream stream, const void* before,
                             void* after, int64_t num_bytes) {
  if (before == after || num_bytes == 0) return ffi::Error::Success();
  return device_error(operation, copy_bytes(stream, after, before, num_bytes));
}
inline ffi::Error carry_over(std::string_view operation, DeviceStream stream,
                             const ffi::AnyBuffer& before, const ffi::AnyBuffer& after,
                             int64_t num_bytes) {
  return carry_over(operation, stream, before.untyped_data(), after.untyped_data(), num_bytes);
}

/// The map of an operand with batch axes `axes`, which broadcast to the batch. Fails if there are
/// more of them than a kernel takes.
inline ffi::ErrorOr<BatchMap> batch_map(std::string_view operation, Shape batch, Shape axes) {
  BatchMap map;
  if (std::ranges::equal(batch, axes)) return map;
  if (batch.size() > BatchMap::kMaxRank) {
    return ffi::Unexpected(invalid_argument(operation, "takes at most ", BatchMap::kMaxRank,
                                            " batch axes on CUDA, got ", Printed{batch}));
  }
  map.is_identity = false;
  map.rank = static_cast<int32_t>(batch.size());
  int64_t stride = 1;
  for (size_t axis = batch.size(); axis-- > 0;) {
    map.sizes[axis] = batch[axis];
    map.strides[axis] = axes[axis] == 1 ? 0 : stride;
    stride *= axes[axis];
  }
  return map;
}

}  // namespace pagedkv::cuda
