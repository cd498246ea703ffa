#include "pagedkv/hash/page_hasher.h"

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

void hash_in_turn(const PageRun& run, const HashFunctions& functions) {
  const PageHash* last = &run.parent;
  auto tokens = run.tokens;
  for (PageHash& digest : run.digests) {
    digest = functions.hash_page(*last, tokens.first(run.page_size()), {});
    tokens = tokens.subspan(run.page_size());
    last = &digest;
  }
}

void hash_runs(std::span<const PageRun> runs, HashAlgorithm algorithm) {
  const HashFunctions& functions = functions_of(algorithm);
  if (functions.hash_runs != nullptr) return functions.hash_runs(runs);
  for (const PageRun& run : runs) hash_in_turn(run, functions);
}

}  // namespace pagedkv
