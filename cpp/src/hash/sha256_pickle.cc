#include "hash_functions.h"
#include "page_pickle.h"
#include "pagedkv/hash/sha256.h"
#include "with_buffer.h"

namespace pagedkv {
namespace {

PageHash none_hash(std::string_view seed) {
  return with_buffer(max_text_pickle_bytes(seed), [&](std::span<std::byte> buffer) {
    return PageHash{sha256(buffer.first(write_text_pickle(buffer, seed)))};
  });
}

PageHash hash_page(const PageHash& parent, std::span<const TokenId> tokens,
                   std::span<const std::byte> /*extra*/) {
  return with_buffer(max_page_pickle_bytes(tokens.size()), [&](std::span<std::byte> buffer) {
    return PageHash{sha256(buffer.first(write_page_pickle(buffer, parent.bytes, tokens)))};
  });
}

}  // namespace

constinit const HashFunctions kSha256Functions = {
    HashAlgorithm::kSha256, "sha256", "sha256", 32, false, none_hash, hash_page, nullptr,
};

}  // namespace pagedkv
