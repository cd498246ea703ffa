#include "hash_functions.h"
#include "page_cbor.h"
#include "pagedkv/hash/xxh3.h"
#include "xxh3_page_hash.h"

namespace pagedkv {
namespace {

PageHash none_hash(std::string_view seed) { return hash_seed_cbor(seed, xxh3_page_hash); }

PageHash hash_page(const PageHash& parent, std::span<const TokenId> tokens,
                   std::span<const std::byte> extra) {
  const std::size_t max_bytes = max_page_cbor_bytes(tokens.size(), extra.size());
  return with_buffer(max_bytes, [&](std::span<std::byte> buffer) {
    const auto parent_digest = std::span(parent.bytes).first<sizeof(Xxh3Digest)>();
    return xxh3_page_hash(buffer.first(write_page_cbor(buffer, parent_digest, tokens, extra)));
  });
}

}  // namespace

constinit const HashFunctions kXxh3CborFunctions = {
    HashAlgorithm::kXxh3Cbor,
    "xxh3_128_cbor",
    "xxhash_cbor",
    16,
    true,
    none_hash,
    hash_page,
    nullptr,
};

}  // namespace pagedkv
