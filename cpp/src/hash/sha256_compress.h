#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>

#include "pagedkv/hash/big_endian.h"
#include "pagedkv/hash/sha256.h"

/// The inner functions of SHA-256, once per instruction set. Each has a file of its own.
namespace pagedkv {

using Sha256State = std::array<std::uint32_t, 8>;

/// FIPS 180-4, 5.3.3: fractional parts of the square roots of the first 8 primes.
inline constexpr Sha256State kSha256InitialState = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

/// Folds `num_blocks` whole blocks from `blocks` on into `state`. No alignment is required.
using Sha256Compress = void(Sha256State& state, const std::byte* blocks, std::size_t num_blocks);

/// Digest of `num_blocks >= 1` whole blocks, padding included, of a linked message. See
/// `sha256_linked`.
using Sha256DigestLinked = Sha256Digest(const Sha256Digest& link, std::byte* blocks,
                                        std::size_t num_blocks);

/// A linked message, padded to whole blocks. See `sha256_linked`.
struct Sha256LinkedMessage {
  Sha256Digest digest;  ///< The link before, the message's digest after.
  std::byte* blocks = nullptr;
  std::size_t num_blocks = 0;  ///< At least 1.
};

/// Takes two linked messages that do not depend on each other, at once where that is faster.
using Sha256DigestTwoLinked = void(Sha256LinkedMessage& first, Sha256LinkedMessage& second);

/// A state, and a block to fold into it.
struct Sha256Step {
  Sha256State state = kSha256InitialState;
  const std::byte* block = nullptr;
};

/// Takes two steps that do not depend on each other, at once where that is faster.
using Sha256CompressTwo = void(Sha256Step& first, Sha256Step& second);

struct Sha256Implementation {
  Sha256Isa isa;
  Sha256Compress* compress;
  Sha256CompressTwo* compress_two;
  Sha256DigestLinked* digest_linked;
  Sha256DigestTwoLinked* digest_two_linked;
};

Sha256Implementation sha256_portable();

/// The first of what this CPU can run.
const Sha256Implementation& fastest_sha256();

/// Nothing where the CPU lacks the instructions.
std::optional<Sha256Implementation> find_sha256_x86_sha_ni();
std::optional<Sha256Implementation> find_sha256_armv8_crypto();

/// FIPS 180-4, 4.2.2: fractional parts of the cube roots of the first 64 primes.
alignas(16) inline constexpr std::array<std::uint32_t, 64> kSha256RoundConstants = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

inline Sha256Digest to_digest(const Sha256State& state) {
  Sha256Digest digest;
  for (std::size_t i = 0; i < state.size(); ++i) store_big_endian(digest.data() + 4 * i, state[i]);
  return digest;
}

/// The `Sha256DigestLinked` that takes the detour through memory.
template <Sha256Compress& compress>
Sha256Digest digest_linked_by_copy(const Sha256Digest& link, std::byte* blocks,
                                   std::size_t num_blocks) {
  std::copy(link.begin(), link.end(), blocks + kSha256LinkOffset);
  Sha256State state = kSha256InitialState;
  compress(state, blocks, num_blocks);
  return to_digest(state);
}

/// The `Sha256DigestTwoLinked` that takes one message after the other.
template <Sha256DigestLinked& digest_linked>
void digest_two_linked_in_turn(Sha256LinkedMessage& first, Sha256LinkedMessage& second) {
  first.digest = digest_linked(first.digest, first.blocks, first.num_blocks);
  second.digest = digest_linked(second.digest, second.blocks, second.num_blocks);
}

/// Writes what follows a message of `message_bytes` in all, whose end is at `message_end`: a mark,
/// zeros and the length in bits, up to `end`. May overwrite kSha256MaxPaddingBytes, whatever it
/// needs: zeros of a fixed number are a few wide stores, and no call.
inline void write_sha256_padding(std::byte* message_end, std::byte* end,
                                 std::uint64_t message_bytes) {
  *message_end = std::byte{0x80};
  std::memset(message_end + 1, 0, kSha256BlockBytes - 1);
  store_big_endian(end - 8, 8 * message_bytes);
}

/// The `Sha256CompressTwo` that takes one step after the other.
template <Sha256Compress& compress>
void compress_two_in_turn(Sha256Step& first, Sha256Step& second) {
  compress(first.state, first.block, 1);
  compress(second.state, second.block, 1);
}

}  // namespace pagedkv
