#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <vector>

namespace pagedkv {

/// Messages of up to about 170 tokens are encoded on the stack.
inline constexpr std::size_t kStackBytes = 1024;

/// Calls `use` with `num_bytes` uninitialised bytes or more, and returns what it returns.
template <typename Use>
auto with_buffer(std::size_t num_bytes, Use use) {
  if (num_bytes > kStackBytes) {
    std::vector<std::byte> buffer(num_bytes);
    return use(std::span<std::byte>(buffer));
  }
  std::array<std::byte, kStackBytes> buffer;
  return use(std::span<std::byte>(buffer));
}

}  // namespace pagedkv
