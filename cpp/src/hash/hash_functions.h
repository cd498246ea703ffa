#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "pagedkv/hash/hash_algorithm.h"
#include "pagedkv/hash/page_hash.h"
#include "pagedkv/types.h"

/// What an algorithm is made of. Each has a file of its own, and a line in hash_algorithm.cc.
namespace pagedkv {

struct HashFunctions {
  HashAlgorithm algorithm;
  std::string_view name;
  std::string_view name_in_vllm;  ///< As `name`, or what vLLM says instead.
  std::size_t digest_bytes;
  bool takes_extra_keys;
  PageHash (*none_hash)(std::string_view seed);
  PageHash (*hash_page)(const PageHash& parent, std::span<const TokenId> tokens,
                        std::span<const std::byte> extra);
  /// A run of pages without extra keys, one digest each. Null: one after the other will do.
  void (*hash_pages)(const PageHash& parent, std::span<const TokenId> tokens,
                     std::span<PageHash> digests);
};

extern const HashFunctions kSha256CborFunctions;
extern const HashFunctions kSha256Functions;
extern const HashFunctions kXxh3CborFunctions;
extern const HashFunctions kXxh3Functions;
extern const HashFunctions kPagedkvFunctions;

const HashFunctions& functions_of(HashAlgorithm algorithm);

}  // namespace pagedkv
