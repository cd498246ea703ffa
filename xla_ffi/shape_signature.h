#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "checks.h"
#include "inline_vector.h"

namespace pagedkv {

/// Dtypes and shapes of the operands of a call, in one piece.
///
/// A program calls a handler with the same shapes again and again, and to check them costs as much
/// as to copy a few rows. So a thread keeps what the last call came to, under its signature.
class ShapeSignature {
 public:
  void add(int64_t value) {
    if (values_.size() < kCapacity) {
      values_.push_back(value);
    } else {
      is_complete_ = false;
    }
  }

  void add(const ffi::AnyBuffer& buffer) {
    add(static_cast<int64_t>(buffer.element_type()));
    const Shape axes = shape(buffer);
    add(static_cast<int64_t>(axes.size()));
    for (const int64_t axis : axes) add(axis);
  }

  void add(std::span<const ffi::AnyBuffer> buffers) {
    for (const ffi::AnyBuffer& buffer : buffers) add(buffer);
  }

  /// Whether both are complete and the same.
  bool matches(const ShapeSignature& other) const {
    return is_complete_ && other.is_complete_ &&
           std::ranges::equal(values_.span(), other.values_.span());
  }

 private:
  static constexpr size_t kCapacity = 96;
  InlineVector<int64_t, kCapacity> values_;
  bool is_complete_ = true;
};

}  // namespace pagedkv
