#pragma once

#include <array>
#include <cstddef>
#include <span>

namespace pagedkv {

using Xxh3Digest = std::array<std::byte, 16>;

/// XXH3 of `message`, the variant of 128 bits with seed 0 and the default secret, as its public
/// specification ("xxHash fast digest algorithm", version 0.2.0) has it. The digest is in the
/// canonical order: most significant byte first.
///
/// Fast, and spreads well. Not a cryptographic hash: collisions can be made on purpose.
Xxh3Digest xxh3_128(std::span<const std::byte> message);

}  // namespace pagedkv
