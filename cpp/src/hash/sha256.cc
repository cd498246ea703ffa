#include "pagedkv/hash/sha256.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "pagedkv/error.h"
#include "pagedkv/hash/big_endian.h"
#include "sha256_compress.h"

namespace pagedkv {
namespace {

// Every implementation this CPU can run, the fastest first.
struct Implementations {
  std::array<Sha256Isa, 3> isas{};
  std::array<Sha256Compress*, 3> functions{};
  std::size_t count = 0;

  Implementations() {
    add(Sha256Isa::kX86ShaNi, find_sha256_x86_sha_ni());
    add(Sha256Isa::kArmv8Crypto, find_sha256_armv8_crypto());
    add(Sha256Isa::kPortable, compress_sha256_portable);
  }

  void add(Sha256Isa isa, Sha256Compress* function) {
    if (function == nullptr) return;
    isas[count] = isa;
    functions[count] = function;
    ++count;
  }
};

const Implementations& implementations() {
  static const Implementations found;
  return found;
}

Sha256Compress* implementation(Sha256Isa isa) {
  const Implementations& found = implementations();
  for (std::size_t i = 0; i < found.count; ++i) {
    if (found.isas[i] == isa) return found.functions[i];
  }
  throw_value_error("sha256", "instruction set ", static_cast<int>(isa),
                    " is not supported by this CPU");
}

Sha256Digest to_digest(const Sha256State& state) {
  Sha256Digest digest;
  for (std::size_t i = 0; i < state.size(); ++i) store_big_endian(digest.data() + 4 * i, state[i]);
  return digest;
}

// Writes what follows a message of `message_bytes` in all, whose end is at `message_end`: a mark,
// zeros and the length in bits, up to `end`.
void write_padding(std::byte* message_end, std::byte* end, std::uint64_t message_bytes) {
  *message_end = std::byte{0x80};
  std::fill(message_end + 1, end - 8, std::byte{0});
  store_big_endian(end - 8, 8 * message_bytes);
}

Sha256Digest digest_with(Sha256Compress* compress, std::span<const std::byte> message) {
  const std::size_t num_whole_blocks = message.size() / kSha256BlockBytes;
  const auto rest = message.subspan(num_whole_blocks * kSha256BlockBytes);
  std::array<std::byte, 2 * kSha256BlockBytes> tail;
  const std::size_t tail_bytes = sha256_padded_bytes(rest.size());
  std::copy(rest.begin(), rest.end(), tail.begin());
  write_padding(tail.data() + rest.size(), tail.data() + tail_bytes, message.size());

  Sha256State state = kSha256InitialState;
  compress(state, message.data(), num_whole_blocks);
  compress(state, tail.data(), tail_bytes / kSha256BlockBytes);
  return to_digest(state);
}

}  // namespace

std::span<const Sha256Isa> supported_sha256_isas() {
  return std::span(implementations().isas).first(implementations().count);
}

Sha256Digest sha256(std::span<const std::byte> message) {
  return digest_with(implementations().functions.front(), message);
}

Sha256Digest sha256(std::span<const std::byte> message, Sha256Isa isa) {
  return digest_with(implementation(isa), message);
}

Sha256Digest sha256_in_place(std::span<std::byte> buffer, std::size_t message_bytes) {
  const std::size_t padded_bytes = sha256_padded_bytes(message_bytes);
  assert(buffer.size() >= padded_bytes);
  write_padding(buffer.data() + message_bytes, buffer.data() + padded_bytes, message_bytes);
  Sha256State state = kSha256InitialState;
  implementations().functions.front()(state, buffer.data(), padded_bytes / kSha256BlockBytes);
  return to_digest(state);
}

}  // namespace pagedkv
