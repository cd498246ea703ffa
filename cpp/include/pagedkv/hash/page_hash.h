#pragma once

#include <array>
#include <cstddef>

namespace pagedkv {

/// What names the content of a full page: a digest over its tokens, its extra keys and the digest
/// of the page before it. Equal digests mean equal K/V, on every host that hashes alike.
///
/// Algorithms with shorter digests leave the tail zero.
struct PageHash {
  std::array<std::byte, 32> bytes{};

  friend bool operator==(const PageHash&, const PageHash&) = default;
};

}  // namespace pagedkv
