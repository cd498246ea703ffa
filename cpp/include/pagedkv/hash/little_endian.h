#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

/// Numbers in memory, least significant byte first, as XXH3 and pickle have them.
namespace pagedkv {

constexpr std::uint32_t to_little_endian(std::uint32_t value) {
  return std::endian::native == std::endian::little ? value : __builtin_bswap32(value);
}

constexpr std::uint64_t to_little_endian(std::uint64_t value) {
  return std::endian::native == std::endian::little ? value : __builtin_bswap64(value);
}

/// The four bytes from `in` on. No alignment is required.
inline std::uint32_t load_little_endian32(const std::byte* in) {
  std::uint32_t value;
  std::memcpy(&value, in, sizeof value);
  return to_little_endian(value);
}

/// The eight bytes from `in` on. No alignment is required.
inline std::uint64_t load_little_endian64(const std::byte* in) {
  std::uint64_t value;
  std::memcpy(&value, in, sizeof value);
  return to_little_endian(value);
}

/// Writes `sizeof value` bytes from `out` on. No alignment is required.
template <typename Unsigned>
void store_little_endian(std::byte* out, Unsigned value) {
  value = to_little_endian(value);
  std::memcpy(out, &value, sizeof value);
}

}  // namespace pagedkv
