#pragma once

#include <string>
#include <string_view>

namespace pagedkv {

/// An element type of a KV cache, by the name NumPy, ml_dtypes and JAX give it.
class DType {
 public:
  /// Throws `std::invalid_argument` for a name that is not an element type of ours.
  explicit DType(std::string_view name);

  const std::string& name() const { return name_; }

  /// Bits an element takes in a packed array: 4 for "int4".
  int bits() const { return bits_; }

  friend bool operator==(const DType&, const DType&) = default;

 private:
  std::string name_;
  int bits_;
};

}  // namespace pagedkv
