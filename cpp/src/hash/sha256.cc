#include "pagedkv/hash/sha256.h"

#include <algorithm>
#include <cassert>
#include <vector>

#include "pagedkv/error.h"
#include "pagedkv/hash/big_endian.h"
#include "sha256_compress.h"

namespace pagedkv {
namespace {

// Every implementation this CPU can run, the fastest first.
const std::vector<Sha256Implementation>& implementations() {
  static const auto found = [] {
    std::vector<Sha256Implementation> all;
    if (const auto sha_ni = find_sha256_x86_sha_ni()) all.push_back(*sha_ni);
    if (const auto crypto = find_sha256_armv8_crypto()) all.push_back(*crypto);
    all.push_back(sha256_portable());
    return all;
  }();
  return found;
}

const Sha256Implementation& implementation(Sha256Isa isa) {
  for (const Sha256Implementation& candidate : implementations()) {
    if (candidate.isa == isa) return candidate;
  }
  throw_value_error("sha256", "instruction set ", static_cast<int>(isa),
                    " is not supported by this CPU");
}

Sha256Digest digest_with(Sha256Compress* compress, std::span<const std::byte> message) {
  const std::size_t num_whole_blocks = message.size() / kSha256BlockBytes;
  const auto rest = message.subspan(num_whole_blocks * kSha256BlockBytes);
  std::array<std::byte, kSha256BlockBytes - 1 + kSha256MaxPaddingBytes> tail;
  const std::size_t tail_bytes = sha256_padded_bytes(rest.size());
  std::copy(rest.begin(), rest.end(), tail.begin());
  write_sha256_padding(tail.data() + rest.size(), tail.data() + tail_bytes, message.size());

  Sha256State state = kSha256InitialState;
  compress(state, message.data(), num_whole_blocks);
  compress(state, tail.data(), tail_bytes / kSha256BlockBytes);
  return to_digest(state);
}

Sha256Digest linked_with(Sha256DigestLinked* digest, const Sha256Digest& link,
                         std::span<std::byte> buffer, std::size_t message_bytes) {
  const std::size_t padded_bytes = sha256_padded_bytes(message_bytes);
  assert(message_bytes >= kSha256LinkOffset + link.size());
  assert(buffer.size() >= message_bytes + kSha256MaxPaddingBytes);
  write_sha256_padding(buffer.data() + message_bytes, buffer.data() + padded_bytes, message_bytes);
  return digest(link, buffer.data(), padded_bytes / kSha256BlockBytes);
}

}  // namespace

// A copy of its own, which costs one load less than the front of the vector.
const Sha256Implementation& fastest_sha256() {
  static const Sha256Implementation first = implementations().front();
  return first;
}

std::vector<Sha256Isa> supported_sha256_isas() {
  std::vector<Sha256Isa> isas;
  for (const Sha256Implementation& each : implementations()) isas.push_back(each.isa);
  return isas;
}

Sha256Digest sha256(std::span<const std::byte> message) {
  return digest_with(fastest_sha256().compress, message);
}

Sha256Digest sha256(std::span<const std::byte> message, Sha256Isa isa) {
  return digest_with(implementation(isa).compress, message);
}

Sha256Digest sha256_linked(const Sha256Digest& link, std::span<std::byte> buffer,
                           std::size_t message_bytes) {
  return linked_with(fastest_sha256().digest_linked, link, buffer, message_bytes);
}

Sha256Digest sha256_linked(const Sha256Digest& link, std::span<std::byte> buffer,
                           std::size_t message_bytes, Sha256Isa isa) {
  return linked_with(implementation(isa).digest_linked, link, buffer, message_bytes);
}

}  // namespace pagedkv
