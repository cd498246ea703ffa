#include "pagedkv/hash/page_hasher.h"

#include <cassert>

#include "hash_functions.h"
#include "pagedkv/error.h"

namespace pagedkv {

PageHash none_hash(std::string_view seed, HashAlgorithm algorithm) {
  return functions_of(algorithm).none_hash(seed);
}

PageHash hash_page(const PageHash& parent, std::span<const TokenId> tokens,
                   std::span<const std::byte> extra, HashAlgorithm algorithm) {
  const HashFunctions& functions = functions_of(algorithm);
  if (!extra.empty() && !functions.takes_extra_keys) {
    throw_value_error("hash_page", "algorithm ", functions.name,
                      " takes no extra keys, since pickle is no function of their values; use ",
                      functions.name, "_cbor");
  }
  return functions.hash_page(parent, tokens, extra);
}

void hash_pages(const PageHash& parent, std::span<const TokenId> tokens,
                std::span<PageHash> digests, HashAlgorithm algorithm) {
  if (digests.empty()) return;
  assert(tokens.size() % digests.size() == 0);
  const HashFunctions& functions = functions_of(algorithm);
  if (functions.hash_pages != nullptr) return functions.hash_pages(parent, tokens, digests);
  const std::size_t page_size = tokens.size() / digests.size();
  const PageHash* last = &parent;
  for (PageHash& digest : digests) {
    digest = functions.hash_page(*last, tokens.first(page_size), {});
    tokens = tokens.subspan(page_size);
    last = &digest;
  }
}

}  // namespace pagedkv
