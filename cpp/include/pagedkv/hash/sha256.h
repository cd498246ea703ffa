#pragma once

#include <array>
#include <cstddef>
#include <span>

namespace pagedkv {

using Sha256Digest = std::array<std::byte, 32>;

/// SHA-256 works on blocks of this many bytes.
inline constexpr std::size_t kSha256BlockBytes = 64;

/// Instructions that SHA-256 can be computed with. The digest is the same with all of them.
enum class Sha256Isa { kPortable, kX86ShaNi, kArmv8Crypto };

/// What this CPU can run: the fastest first, `kPortable` last.
std::span<const Sha256Isa> supported_sha256_isas();

/// SHA-256 of `message`, with the fastest instructions this CPU has.
///
/// Made for short messages: nothing is allocated, and nothing is set up per call.
Sha256Digest sha256(std::span<const std::byte> message);

/// As above, with `isa`. Throws `std::invalid_argument` if this CPU does not support it.
Sha256Digest sha256(std::span<const std::byte> message, Sha256Isa isa);

/// Size of a message of `message_bytes` once padded, a multiple of `kSha256BlockBytes`.
constexpr std::size_t sha256_padded_bytes(std::size_t message_bytes) {
  constexpr std::size_t kMarkAndLengthBytes = 1 + 8;
  return (message_bytes + kMarkAndLengthBytes + kSha256BlockBytes - 1) / kSha256BlockBytes *
         kSha256BlockBytes;
}

/// SHA-256 of the first `message_bytes` of `buffer`, which is overwritten behind them: the padding
/// goes there, so that no byte is copied.
///
/// Requires `buffer.size() >= sha256_padded_bytes(message_bytes)`.
Sha256Digest sha256_in_place(std::span<std::byte> buffer, std::size_t message_bytes);

}  // namespace pagedkv
