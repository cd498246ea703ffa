#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "pagedkv/hash/page_hash.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// How the content of a page becomes a digest. All who share a cache must agree on it.
enum class HashAlgorithm {
  /// SHA-256 of the canonical CBOR of `(parent, (tokens...), extra keys or null)`. Bit-identical
  /// to vLLM's algorithm of this name.
  kSha256Cbor,
};

/// Seed of the digest that stands before the first page. vLLM's default for its SHA algorithms.
inline constexpr std::string_view kDefaultHashSeed = "vllm-none-hash";

/// The parent of a first page. Caches with different seeds share nothing.
PageHash none_hash(std::string_view seed = kDefaultHashSeed,
                   HashAlgorithm algorithm = HashAlgorithm::kSha256Cbor);

/// Digest of a full page that holds `tokens` and follows the page of digest `parent`.
///
/// `extra` is one value in the encoding of the algorithm (canonical CBOR for `kSha256Cbor`): what
/// besides the tokens decides the content of the page, such as the adapter's name. Empty stands
/// for "nothing". Allocates only for pages of more than about 170 tokens. Thread-safe.
PageHash hash_page(const PageHash& parent, std::span<const TokenId> tokens,
                   std::span<const std::byte> extra = {},
                   HashAlgorithm algorithm = HashAlgorithm::kSha256Cbor);

}  // namespace pagedkv
