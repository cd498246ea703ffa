#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "pagedkv/hash/page_hash.h"
#include "pagedkv/hash/xxh3.h"

namespace pagedkv {

/// XXH3-128 of `message`, with a tail of zeros.
inline PageHash xxh3_page_hash(std::span<const std::byte> message) {
  PageHash hash;
  std::ranges::copy(xxh3_128(message), hash.bytes.begin());
  return hash;
}

}  // namespace pagedkv
