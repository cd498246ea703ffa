#include "sha256_compress.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

#include "pagedkv/hash/sha256.h"

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

__m128i* as_vectors(std::uint32_t* words) { return reinterpret_cast<__m128i*>(words); }

PAGEDKV_SHA_NI_INLINE Registers load_state(Sha256State& state) {
  const __m128i badc = _mm_shuffle_epi32(_mm_loadu_si128(as_vectors(state.data())), 0xB1);
  const __m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128(as_vectors(state.data() + 4)), 0x1B);
  return {_mm_alignr_epi8(badc, hgfe, 8), _mm_blend_epi16(hgfe, badc, 0xF0)};
}

PAGEDKV_SHA_NI_INLINE void store_state(Sha256State& state, const Registers& registers) {
  const __m128i feba = _mm_shuffle_epi32(registers.abef, 0x1B);
  const __m128i dchg = _mm_shuffle_epi32(registers.cdgh, 0xB1);
  _mm_storeu_si128(as_vectors(state.data()), _mm_blend_epi16(feba, dchg, 0xF0));
  _mm_storeu_si128(as_vectors(state.data() + 4), _mm_alignr_epi8(dchg, feba, 8));
}

// Four words of the message, as numbers.
PAGEDKV_SHA_NI_INLINE __m128i load_words(const std::byte* bytes) {
  const __m128i swap_each = _mm_set_epi64x(0x0C0D0E0F08090A0B, 0x0405060700010203);
  return _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)), swap_each);
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

PAGEDKV_SHA_NI void compress_sha256_sha_ni(Sha256State& state, const std::byte* blocks,
                                           std::size_t num_blocks) {
  Registers registers = load_state(state);
  for (const std::byte* block = blocks; num_blocks > 0; --num_blocks, block += kSha256BlockBytes) {
    const Registers before = registers;
    __m128i w0 = load_words(block);
    __m128i w1 = load_words(block + 16);
    __m128i w2 = load_words(block + 32);
    __m128i w3 = load_words(block + 48);
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
  store_state(state, registers);
}

bool cpu_has_sha_ni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((ecx & bit_SSSE3) == 0 || (ecx & bit_SSE4_1) == 0) return false;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (ebx & bit_SHA) != 0;
}

}  // namespace

Sha256Compress* find_sha256_x86_sha_ni() {
  return cpu_has_sha_ni() ? compress_sha256_sha_ni : nullptr;
}

}  // namespace pagedkv

#else

pagedkv::Sha256Compress* pagedkv::find_sha256_x86_sha_ni() { return nullptr; }

#endif
