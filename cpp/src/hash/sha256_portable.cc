#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "sha256_compress.h"

namespace pagedkv {
namespace {

using Schedule = std::array<std::uint32_t, 64>;

Schedule message_schedule(const std::byte* block) {
  Schedule w;
  for (std::size_t t = 0; t < 16; ++t) w[t] = load_big_endian32(block + 4 * t);
  for (std::size_t t = 16; t < 64; ++t) {
    const std::uint32_t s0 = std::rotr(w[t - 15], 7) ^ std::rotr(w[t - 15], 18) ^ (w[t - 15] >> 3);
    const std::uint32_t s1 = std::rotr(w[t - 2], 17) ^ std::rotr(w[t - 2], 19) ^ (w[t - 2] >> 10);
    w[t] = w[t - 16] + s0 + w[t - 7] + s1;
  }
  return w;
}

void compress_block(Sha256State& state, const std::byte* block) {
  const Schedule w = message_schedule(block);
  auto [a, b, c, d, e, f, g, h] = state;
  for (std::size_t t = 0; t < 64; ++t) {
    const std::uint32_t sum1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    const std::uint32_t choice = (e & f) ^ (~e & g);
    const std::uint32_t t1 = h + sum1 + choice + kSha256RoundConstants[t] + w[t];
    const std::uint32_t sum0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    const std::uint32_t majority = (a & b) ^ (a & c) ^ (b & c);
    h = g;
    g = f;
    f = e;
    e = d + t1;
    d = c;
    c = b;
    b = a;
    a = t1 + sum0 + majority;
  }
  const Sha256State added = {a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < state.size(); ++i) state[i] += added[i];
}

void compress(Sha256State& state, const std::byte* blocks, std::size_t num_blocks) {
  for (std::size_t i = 0; i < num_blocks; ++i) {
    compress_block(state, blocks + i * kSha256BlockBytes);
  }
}

}  // namespace

Sha256Implementation sha256_portable() {
  return {Sha256Isa::kPortable, compress, compress_two_in_turn<compress>,
          digest_linked_by_copy<compress>,
          digest_two_linked_in_turn<digest_linked_by_copy<compress>>};
}

}  // namespace pagedkv
