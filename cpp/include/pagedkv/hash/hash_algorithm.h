#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace pagedkv {

/// How the content of a page becomes a digest. All who share a cache must agree on it.
///
/// The first four hash one serialized 3-tuple `(parent, (tokens...), extra keys or null)`, and are
/// bit-identical to vLLM's.
enum class HashAlgorithm {
  /// SHA-256 of canonical CBOR. vLLM's `sha256_cbor`.
  kSha256Cbor,
  /// SHA-256 of Python's pickle, protocol 5. vLLM's `sha256`. Only for pages without extra keys:
  /// how Python pickles those depends on which of their strings are one object, not on their
  /// values alone.
  kSha256,
  /// XXH3-128 of canonical CBOR. vLLM's `xxhash_cbor`. Twice as fast, but not made to withstand
  /// people who look for collisions: for trusted tenants.
  kXxh3Cbor,
  /// XXH3-128 of Python's pickle. vLLM's `xxhash`. Both warnings above hold.
  kXxh3,
  /// SHA-256 of a format of our own, where no vLLM peer must agree: the fastest of the strong ones.
  /// Numbers are u32, least significant byte first (tokens in two's complement); `||` joins bytes:
  ///
  ///     page:  tokens || extra || parent (32 bytes) || number of tokens || bytes of extra
  ///     root:  "pagedkv page hash 1" || seed || 0xFFFFFFFF || bytes of seed
  ///
  /// `extra` is canonical CBOR, or nothing. A message can be read in one way only, from its end:
  /// the last eight bytes give the lengths, and no page has 2^32 - 1 tokens. The text in the root
  /// carries the version, and so does every digest that follows from it. Tokens come first since
  /// the first 64 bytes, 16 tokens, are a block of SHA-256 that does not wait for the page before.
  kPagedkv,
  /// XXH3-128 of that format, with a parent of 16 bytes: the fastest. As with the other XXH3,
  /// collisions can be made on purpose: for trusted tenants.
  kPagedkvXxh3,
};

/// Every algorithm, the default first.
std::span<const HashAlgorithm> all_hash_algorithms();

/// "sha256_cbor", "sha256", "xxh3_128_cbor", "xxh3_128", "pagedkv" and "pagedkv_xxh3".
std::string_view name(HashAlgorithm algorithm);

/// The algorithm of that name. vLLM's names "xxhash_cbor" and "xxhash" are known, too.
///
/// Throws `std::invalid_argument` naming those known.
HashAlgorithm hash_algorithm_named(std::string_view name);

/// Bytes of a digest: 32 with SHA-256, 16 with XXH3-128.
std::size_t digest_bytes(HashAlgorithm algorithm);

/// False iff pages with extra keys are refused.
bool takes_extra_keys(HashAlgorithm algorithm);

}  // namespace pagedkv
