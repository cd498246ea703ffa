#include "hash_functions.h"
#include "page_pickle.h"
#include "with_buffer.h"
#include "xxh3_page_hash.h"

namespace pagedkv {
namespace {

PageHash none_hash(std::string_view seed) {
  return with_buffer(max_text_pickle_bytes(seed), [&](std::span<std::byte> buffer) {
    return xxh3_page_hash(buffer.first(write_text_pickle(buffer, seed)));
  });
}

PageHash hash_page(const PageHash& parent, std::span<const TokenId> tokens,
                   std::span<const std::byte> /*extra*/) {
  return with_buffer(max_page_pickle_bytes(tokens.size()), [&](std::span<std::byte> buffer) {
    const auto parent_digest = std::span(parent.bytes).first<sizeof(Xxh3Digest)>();
    return xxh3_page_hash(buffer.first(write_page_pickle(buffer, parent_digest, tokens)));
  });
}

}  // namespace

constinit const HashFunctions kXxh3Functions = {
    HashAlgorithm::kXxh3, "xxh3_128", "xxhash", 16, false, none_hash, hash_page, nullptr,
};

}  // namespace pagedkv
