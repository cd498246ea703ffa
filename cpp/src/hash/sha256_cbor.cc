#include "hash_functions.h"
#include "page_cbor.h"
#include "pagedkv/hash/sha256.h"

namespace pagedkv {
namespace {

PageHash none_hash(std::string_view seed) {
  return hash_seed_cbor(seed, [](auto message) { return PageHash{sha256(message)}; });
}

PageHash hash_page(const PageHash& parent, std::span<const TokenId> tokens,
                   std::span<const std::byte> extra) {
  constexpr PageHash kRoomForParent;
  const std::size_t max_bytes =
      max_page_cbor_bytes(tokens.size(), extra.size()) + kSha256MaxPaddingBytes;
  return with_buffer(max_bytes, [&](std::span<std::byte> buffer) {
    const std::size_t size = write_page_cbor(buffer, kRoomForParent.bytes, tokens, extra);
    return PageHash{sha256_linked(parent.bytes, buffer, size)};
  });
}

}  // namespace

constinit const HashFunctions kSha256CborFunctions = {
    HashAlgorithm::kSha256Cbor,
    "sha256_cbor",
    "sha256_cbor",
    32,
    true,
    none_hash,
    hash_page,
    nullptr,
};

}  // namespace pagedkv
