#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "pagedkv/hash/page_hash.h"

namespace pagedkv {

/// A digest that differs for each `number`, spread over its bytes as a real one is.
inline PageHash hash_of(std::uint64_t number) {
  PageHash hash;
  for (std::size_t word = 0; word < 4; ++word) {
    number = number * 6364136223846793005U + 1442695040888963407U;
    std::memcpy(hash.bytes.data() + 8 * word, &number, sizeof number);
  }
  return hash;
}

/// Digests that all want the same place in a prefix index of group 0: only their tails differ.
inline PageHash colliding_hash_of(std::uint8_t number) {
  PageHash hash;
  hash.bytes.back() = static_cast<std::byte>(number);
  return hash;
}

}  // namespace pagedkv
