#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "pagedkv/hash/hash_algorithm.h"
#include "pagedkv/hash/page_hash.h"
#include "pagedkv/hash/page_hasher.h"
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
  /// As the public function of this name. Null: one page after the other will do.
  void (*hash_runs)(std::span<const PageRun> runs);
};

extern const HashFunctions kSha256CborFunctions;
extern const HashFunctions kSha256Functions;
extern const HashFunctions kXxh3CborFunctions;
extern const HashFunctions kXxh3Functions;
extern const HashFunctions kPagedkvFunctions;
extern const HashFunctions kPagedkvXxh3Functions;

const HashFunctions& functions_of(HashAlgorithm algorithm);

/// Fills the digests of `run` with `hash_page`, one after the other.
void hash_in_turn(const PageRun& run, const HashFunctions& functions);

}  // namespace pagedkv
