#include "sha256_compress.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

// The rest of the library is built for any x86-64; only these functions use the extensions.
#define PAGEDKV_SHA_NI __attribute__((target("sha,sse4.1,ssse3")))
#define PAGEDKV_SHA_NI_INLINE PAGEDKV_SHA_NI __attribute__((always_inline)) inline

namespace pagedkv {
namespace {

// The state as the instructions want it, most significant word first.
struct Registers {
  __m128i abef;
  __m128i cdgh;
};

__m128i load(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }
void store(void* to, __m128i value) { _mm_storeu_si128(static_cast<__m128i*>(to), value); }

PAGEDKV_SHA_NI_INLINE Registers load_state(const Sha256State& state) {
  const __m128i badc = _mm_shuffle_epi32(load(state.data()), 0xB1);
  const __m128i hgfe = _mm_shuffle_epi32(load(state.data() + 4), 0x1B);
  return {_mm_alignr_epi8(badc, hgfe, 8), _mm_blend_epi16(hgfe, badc, 0xF0)};
}

// The state in the order of the standard.
struct StateWords {
  __m128i abcd;
  __m128i efgh;
};

PAGEDKV_SHA_NI_INLINE StateWords state_words(const Registers& registers) {
  const __m128i feba = _mm_shuffle_epi32(registers.abef, 0x1B);
  const __m128i dchg = _mm_shuffle_epi32(registers.cdgh, 0xB1);
  return {_mm_blend_epi16(feba, dchg, 0xF0), _mm_alignr_epi8(dchg, feba, 8)};
}

PAGEDKV_SHA_NI_INLINE void store_state(const Registers& registers, Sha256State& state) {
  const auto [abcd, efgh] = state_words(registers);
  store(state.data(), abcd);
  store(state.data() + 4, efgh);
}

// From four big-endian words to numbers, and back.
PAGEDKV_SHA_NI_INLINE __m128i swap_words(__m128i words) {
  return _mm_shuffle_epi8(words, _mm_set_epi64x(0x0C0D0E0F08090A0B, 0x0405060700010203));
}

// Rounds t .. t + 3, of which `words` are the message words.
PAGEDKV_SHA_NI_INLINE void four_rounds(Registers& registers, __m128i words, std::size_t t) {
  const auto* constants = reinterpret_cast<const __m128i*>(kSha256RoundConstants.data() + t);
  const __m128i input = _mm_add_epi32(words, _mm_load_si128(constants));
  registers.cdgh = _mm_sha256rnds2_epu32(registers.cdgh, registers.abef, input);
  registers.abef =
      _mm_sha256rnds2_epu32(registers.abef, registers.cdgh, _mm_shuffle_epi32(input, 0x0E));
}

// Message words t + 16 .. t + 19, from words t .. t + 15 in `w0` .. `w3`.
PAGEDKV_SHA_NI_INLINE __m128i next_words(__m128i w0, __m128i w1, __m128i w2, __m128i w3) {
  const __m128i partial = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8(w3, w2, 4));
  return _mm_sha256msg2_epu32(partial, w3);
}

// One block of the message, as it lies in memory.
struct Block {
  __m128i w0, w1, w2, w3;
};

PAGEDKV_SHA_NI_INLINE Block load_block(const std::byte* from) {
  return {load(from), load(from + 16), load(from + 32), load(from + 48)};
}

PAGEDKV_SHA_NI_INLINE void compress_block(Registers& registers, const Block& block) {
  const Registers before = registers;
  __m128i w0 = swap_words(block.w0);
  __m128i w1 = swap_words(block.w1);
  __m128i w2 = swap_words(block.w2);
  __m128i w3 = swap_words(block.w3);
#pragma GCC unroll 3
  for (std::size_t t = 0; t < 48; t += 16) {
    four_rounds(registers, w0, t);
    w0 = next_words(w0, w1, w2, w3);
    four_rounds(registers, w1, t + 4);
    w1 = next_words(w1, w2, w3, w0);
    four_rounds(registers, w2, t + 8);
    w2 = next_words(w2, w3, w0, w1);
    four_rounds(registers, w3, t + 12);
    w3 = next_words(w3, w0, w1, w2);
  }
  four_rounds(registers, w0, 48);
  four_rounds(registers, w1, 52);
  four_rounds(registers, w2, 56);
  four_rounds(registers, w3, 60);
  registers.abef = _mm_add_epi32(registers.abef, before.abef);
  registers.cdgh = _mm_add_epi32(registers.cdgh, before.cdgh);
}

PAGEDKV_SHA_NI void compress(Sha256State& state, const std::byte* blocks, std::size_t num_blocks) {
  Registers registers = load_state(state);
  for (std::size_t i = 0; i < num_blocks; ++i) {
    compress_block(registers, load_block(blocks + i * kSha256BlockBytes));
  }
  store_state(registers, state);
}

// Two chains of dependent instructions, side by side: either alone would leave the unit idle.
PAGEDKV_SHA_NI_INLINE void compress_two_blocks(Registers& a, const Block& a_block, Registers& b,
                                               const Block& b_block) {
  const Registers a_before = a;
  const Registers b_before = b;
  __m128i aw[] = {swap_words(a_block.w0), swap_words(a_block.w1), swap_words(a_block.w2),
                  swap_words(a_block.w3)};
  __m128i bw[] = {swap_words(b_block.w0), swap_words(b_block.w1), swap_words(b_block.w2),
                  swap_words(b_block.w3)};
#pragma GCC unroll 16
  for (std::size_t t = 0; t < 64; t += 4) {
    const std::size_t i = t / 4;
    four_rounds(a, aw[i % 4], t);
    four_rounds(b, bw[i % 4], t);
    if (t >= 48) continue;
    aw[i % 4] = next_words(aw[i % 4], aw[(i + 1) % 4], aw[(i + 2) % 4], aw[(i + 3) % 4]);
    bw[i % 4] = next_words(bw[i % 4], bw[(i + 1) % 4], bw[(i + 2) % 4], bw[(i + 3) % 4]);
  }
  a = {_mm_add_epi32(a.abef, a_before.abef), _mm_add_epi32(a.cdgh, a_before.cdgh)};
  b = {_mm_add_epi32(b.abef, b_before.abef), _mm_add_epi32(b.cdgh, b_before.cdgh)};
}

PAGEDKV_SHA_NI void compress_two(Sha256Step& first, Sha256Step& second) {
  Registers a = load_state(first.state);
  Registers b = load_state(second.state);
  compress_two_blocks(a, load_block(first.block), b, load_block(second.block));
  store_state(a, first.state);
  store_state(b, second.state);
}

// The first block, with `link` in place of the zeros at kSha256LinkOffset.
PAGEDKV_SHA_NI_INLINE Block load_linked_block(const Sha256Digest& link, const std::byte* from) {
  constexpr int kOffset = kSha256LinkOffset;
  Block block = load_block(from);
  const __m128i low = load(link.data());
  const __m128i high = load(link.data() + 16);
  block.w0 = _mm_or_si128(block.w0, _mm_slli_si128(low, kOffset));
  block.w1 = _mm_alignr_epi8(high, low, 16 - kOffset);
  block.w2 = _mm_or_si128(block.w2, _mm_srli_si128(high, 16 - kOffset));
  return block;
}

PAGEDKV_SHA_NI_INLINE Sha256Digest digest_of(const Registers& registers) {
  const auto [abcd, efgh] = state_words(registers);
  Sha256Digest digest;
  store(digest.data(), swap_words(abcd));
  store(digest.data() + 16, swap_words(efgh));
  return digest;
}

PAGEDKV_SHA_NI Sha256Digest digest_linked(const Sha256Digest& link, std::byte* blocks,
                                          std::size_t num_blocks) {
  Registers registers = load_state(kSha256InitialState);
  compress_block(registers, load_linked_block(link, blocks));
  for (std::size_t i = 1; i < num_blocks; ++i) {
    compress_block(registers, load_block(blocks + i * kSha256BlockBytes));
  }
  return digest_of(registers);
}

PAGEDKV_SHA_NI void digest_two_linked(Sha256LinkedMessage& first, Sha256LinkedMessage& second) {
  Registers a = load_state(kSha256InitialState);
  Registers b = a;
  compress_two_blocks(a, load_linked_block(first.digest, first.blocks), b,
                      load_linked_block(second.digest, second.blocks));
  std::size_t i = 1;
  for (; i < first.num_blocks && i < second.num_blocks; ++i) {
    compress_two_blocks(a, load_block(first.blocks + i * kSha256BlockBytes), b,
                        load_block(second.blocks + i * kSha256BlockBytes));
  }
  for (std::size_t j = i; j < first.num_blocks; ++j) {
    compress_block(a, load_block(first.blocks + j * kSha256BlockBytes));
  }
  for (std::size_t j = i; j < second.num_blocks; ++j) {
    compress_block(b, load_block(second.blocks + j * kSha256BlockBytes));
  }
  first.digest = digest_of(a);
  second.digest = digest_of(b);
}

bool cpu_has_sha_ni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((ecx & bit_SSSE3) == 0 || (ecx & bit_SSE4_1) == 0) return false;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (ebx & bit_SHA) != 0;
}

}  // namespace

std::optional<Sha256Implementation> find_sha256_x86_sha_ni() {
  if (!cpu_has_sha_ni()) return std::nullopt;
  return Sha256Implementation{Sha256Isa::kX86ShaNi, compress, compress_two, digest_linked,
                              digest_two_linked};
}

}  // namespace pagedkv

#else

std::optional<pagedkv::Sha256Implementation> pagedkv::find_sha256_x86_sha_ni() {
  return std::nullopt;
}

#endif
