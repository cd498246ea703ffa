#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "checks.h"

namespace pagedkv {

/// Dtypes and shapes of the operands of a call, in one piece.
///
/// A program calls a handler with the same shapes again and again, and to check them costs as much
/// as to copy a few rows. So a thread keeps what the last call came to, as long as the signature
/// stays.
class ShapeSignature {
 public:
  /// Replaces a signature by what is added, and finds out whether they are the same.
  class Update {
   public:
    explicit Update(ShapeSignature& signature)
        : signature_(&signature), values_(signature.values_.data()) {}

    void add(int64_t value) {
      if (size_ < kCapacity) {
        difference_ |= values_[size_] ^ value;
        values_[size_] = value;
      }
      ++size_;
    }

    void add(const ffi::AnyBuffer& buffer) {
      const Shape axes = shape(buffer);
      add(static_cast<int64_t>(axes.size()) << 32 | static_cast<int64_t>(buffer.element_type()));
      for (const int64_t axis : axes) add(axis);
    }

    void add(std::span<const ffi::AnyBuffer> buffers) {
      for (const ffi::AnyBuffer& buffer : buffers) add(buffer);
    }

    /// Call this once, after all is added. Signatures with no room for all of it never agree.
    bool finds_the_same() {
      const bool same_size = size_ == signature_->size_ && size_ <= kCapacity;
      signature_->size_ = size_;
      return same_size && difference_ == 0;
    }

   private:
    ShapeSignature* signature_;
    int64_t* values_;
    size_t size_ = 0;
    int64_t difference_ = 0;
  };

 private:
  static constexpr size_t kCapacity = 96;
  std::array<int64_t, kCapacity> values_{};
  size_t size_ = 0;
};

}  // namespace pagedkv
