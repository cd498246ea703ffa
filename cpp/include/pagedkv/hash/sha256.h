#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <vector>

namespace pagedkv {

using Sha256Digest = std::array<std::byte, 32>;

/// SHA-256 works on blocks of this many bytes.
inline constexpr std::size_t kSha256BlockBytes = 64;

/// Instructions that SHA-256 can be computed with. The digest is the same with all of them.
enum class Sha256Isa { kPortable, kX86ShaNi, kArmv8Crypto };

/// What this CPU can run: the fastest first, `kPortable` last.
std::vector<Sha256Isa> supported_sha256_isas();

/// SHA-256 of `message`, with the fastest instructions this CPU has.
///
/// Made for short messages: nothing is allocated, and nothing is set up per call.
Sha256Digest sha256(std::span<const std::byte> message);

/// As above, with `isa`. Throws `std::invalid_argument` if this CPU does not support it.
Sha256Digest sha256(std::span<const std::byte> message, Sha256Isa isa);

/// What follows a message, at most: a mark of one byte, zeros, and the length in eight bytes.
inline constexpr std::size_t kSha256MaxPaddingBytes = 1 + (kSha256BlockBytes - 1) + 8;

/// Size of a message of `message_bytes` once padded, a multiple of `kSha256BlockBytes`.
constexpr std::size_t sha256_padded_bytes(std::size_t message_bytes) {
  constexpr std::size_t kMarkAndLengthBytes = 1 + 8;
  return (message_bytes + kMarkAndLengthBytes + kSha256BlockBytes - 1) / kSha256BlockBytes *
         kSha256BlockBytes;
}

/// Where a linked message holds its link: behind the three bytes that open a page's CBOR.
inline constexpr std::size_t kSha256LinkOffset = 3;

/// SHA-256 of the first `message_bytes` of `buffer`, with `link` in place of the 32 zeros that it
/// holds at `kSha256LinkOffset`. Overwrites the zeros, and `kSha256MaxPaddingBytes` behind the
/// message.
///
/// For chains, where `link` is the digest just computed. It reaches the next message in registers
/// where that is possible, since a detour through memory costs a tenth of the time.
///
/// Requires `message_bytes >= kSha256LinkOffset + sizeof(link)` and
/// `buffer.size() >= message_bytes + kSha256MaxPaddingBytes`.
Sha256Digest sha256_linked(const Sha256Digest& link, std::span<std::byte> buffer,
                           std::size_t message_bytes);

/// As above, with `isa`. Throws `std::invalid_argument` if this CPU does not support it.
Sha256Digest sha256_linked(const Sha256Digest& link, std::span<std::byte> buffer,
                           std::size_t message_bytes, Sha256Isa isa);

}  // namespace pagedkv
