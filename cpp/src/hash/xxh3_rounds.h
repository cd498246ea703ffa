#pragma once

#include <cstddef>
#include <cstdint>

#include "pagedkv/hash/little_endian.h"
#include "xxh3_mix.h"

/// XXH3 of messages of middle length, in line: where the size is a constant, no loop is left.
namespace pagedkv::xxh3 {

inline constexpr auto secret64 = secret_at<std::uint64_t>;

inline std::uint64_t mix_16(const std::byte* message, std::size_t secret_offset) {
  return multiply_fold(load_little_endian64(message) ^ secret64(secret_offset),
                       load_little_endian64(message + 8) ^ secret64(secret_offset + 8));
}

inline std::uint64_t sum_16(const std::byte* message) {
  return load_little_endian64(message) + load_little_endian64(message + 8);
}

// Folds in two runs of 16 bytes.
inline void mix_32(Words128& sum, const std::byte* first, const std::byte* second,
                   std::size_t secret_offset) {
  sum.low = (sum.low + mix_16(first, secret_offset)) ^ sum_16(second);
  sum.high = (sum.high + mix_16(second, secret_offset + 16)) ^ sum_16(first);
}

inline Words128 finish(const Words128& sum, std::size_t size) {
  return {avalanche(sum.low + sum.high),
          0 - avalanche(sum.low * kPrime64A + sum.high * kPrime64D + size * kPrime64B)};
}

// From both ends inwards.
inline Words128 hash_17_to_128(const std::byte* message, std::size_t size) {
  Words128 sum = {size * kPrime64A, 0};
  const auto mix = [&](std::size_t round) {
    mix_32(sum, message + 16 * round, message + size - 16 * (round + 1), 32 * round);
  };
  if (size > 96) mix(3);
  if (size > 64) mix(2);
  if (size > 32) mix(1);
  mix(0);
  return finish(sum, size);
}

}  // namespace pagedkv::xxh3
