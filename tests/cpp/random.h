#pragma once

#include <random>

namespace pagedkv {

/// Numbers that are the same on every machine for the same seed.
class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}

  /// From 0 to `bound - 1`.
  template <typename Integer>
  Integer below(Integer bound) {
    return static_cast<Integer>(engine_() % static_cast<std::mt19937::result_type>(bound));
  }

 private:
  std::mt19937 engine_;
};

}  // namespace pagedkv
