#pragma once

#include <array>
#include <cstddef>
#include <cstring>

namespace pagedkv {

/// What names the content of a full page: a digest over its tokens, its extra keys and the digest
/// of the page before it. Equal digests mean equal K/V, on every host that hashes alike.
///
/// Algorithms with shorter digests leave the tail zero.
struct PageHash {
  std::array<std::byte, 32> bytes{};

  // A comparison of arrays of std::byte would go byte by byte.
  friend bool operator==(const PageHash& a, const PageHash& b) {
    return std::memcmp(a.bytes.data(), b.bytes.data(), sizeof a.bytes) == 0;
  }
};

}  // namespace pagedkv
