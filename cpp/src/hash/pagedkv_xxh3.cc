#include "hash_functions.h"
#include "own_message.h"
#include "pagedkv/hash/xxh3.h"
#include "xxh3_page_hash.h"

namespace pagedkv {
namespace {

PageHash none_hash(std::string_view seed) { return hash_own_root(seed, xxh3_page_hash); }

PageHash hash_page(const PageHash& parent, std::span<const TokenId> tokens,
                   std::span<const std::byte> extra) {
  const auto parent_digest = std::span(parent.bytes).first<sizeof(Xxh3Digest)>();
  return hash_own_page(parent_digest, tokens, extra, xxh3_page_hash);
}

}  // namespace

constinit const HashFunctions kPagedkvXxh3Functions = {
    HashAlgorithm::kPagedkvXxh3,
    "pagedkv_xxh3",
    "pagedkv_xxh3",
    16,
    true,
    none_hash,
    hash_page,
    nullptr,
};

}  // namespace pagedkv
