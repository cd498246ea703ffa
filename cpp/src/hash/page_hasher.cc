#include "pagedkv/hash/page_hasher.h"

#include "pagedkv/error.h"
#include "sha256_cbor.h"

namespace pagedkv {

PageHash none_hash(std::string_view seed, HashAlgorithm algorithm) {
  switch (algorithm) {
    case HashAlgorithm::kSha256Cbor:
      return sha256_cbor::none_hash(seed);
  }
  throw_value_error("none_hash", "unknown algorithm ", static_cast<int>(algorithm));
}

PageHash hash_page(const PageHash& parent, std::span<const TokenId> tokens,
                   std::span<const std::byte> extra, HashAlgorithm algorithm) {
  switch (algorithm) {
    case HashAlgorithm::kSha256Cbor:
      return sha256_cbor::hash_page(parent, tokens, extra);
  }
  throw_value_error("hash_page", "unknown algorithm ", static_cast<int>(algorithm));
}

}  // namespace pagedkv
