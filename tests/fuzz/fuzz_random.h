#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace pagedkv::fuzz {

/// Choices that are the same on every machine for the same seed.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  /// SplitMix64 (Steele, Lea and Flood, 2014): a seed costs nothing, so each call has its own.
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  /// From `low` to `high`, both included.
  int64_t between(int64_t low, int64_t high) {
    const uint64_t count = static_cast<uint64_t>(high) - static_cast<uint64_t>(low) + 1;
    return low + static_cast<int64_t>(count == 0 ? next() : next() % count);
  }

  size_t below(size_t bound) { return static_cast<size_t>(next() % bound); }

  /// True once in `n` times.
  bool one_in(uint64_t n) { return next() % n == 0; }

  template <typename Values>
  const auto& pick(const Values& values) {
    return values[below(std::size(values))];
  }

  void fill(std::span<std::byte> bytes) {
    uint64_t word = 0;
    for (size_t i = 0; i < bytes.size(); ++i) {
      word = i % 8 == 0 ? next() : word >> 8;
      bytes[i] = static_cast<std::byte>(word & 0xff);
    }
  }

 private:
  uint64_t state_;
};

}  // namespace pagedkv::fuzz
