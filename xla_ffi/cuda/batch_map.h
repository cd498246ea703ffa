#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "host_device.h"
#include "units.h"

namespace pagedkv::cuda {

/// Which of its batch elements an operand contributes to each element of the whole batch, as
/// `broadcast_index` says on the CPU. An axis that the operand lacks has a stride of 0.
struct BatchMap {
  /// More axes of vmap than anybody nests.
  static constexpr size_t kMaxRank = 8;

  int32_t rank = 0;
  int64_t sizes[kMaxRank] = {};
  int64_t strides[kMaxRank] = {};
  bool is_identity = true;

  PAGEDKV_DEVICE int64_t operator()(int64_t index) const {
    if (is_identity) return index;
    int64_t result = 0;
    for (int32_t axis = rank; axis-- > 0;) {
      const int64_t rest = divide(index, sizes[axis]);
      result += (index - rest * sizes[axis]) * strides[axis];
      index = rest;
    }
    return result;
  }
};

}  // namespace pagedkv::cuda
