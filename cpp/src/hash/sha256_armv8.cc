#include "sha256_compress.h"

#if defined(__aarch64__) && defined(__linux__)

#include <arm_neon.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>

// The rest of the library is built for any ARMv8; only these functions use the extension.
#if defined(__clang__)
#define PAGEDKV_ARMV8_CRYPTO __attribute__((target("sha2")))
#else
#define PAGEDKV_ARMV8_CRYPTO __attribute__((target("+crypto")))
#endif
#define PAGEDKV_ARMV8_CRYPTO_INLINE PAGEDKV_ARMV8_CRYPTO __attribute__((always_inline)) inline

namespace pagedkv {
namespace {

struct Registers {
  uint32x4_t abcd;
  uint32x4_t efgh;
};

// Four words of the message, as numbers.
PAGEDKV_ARMV8_CRYPTO_INLINE uint32x4_t load_words(const std::byte* bytes) {
  return vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(reinterpret_cast<const std::uint8_t*>(bytes))));
}

// Rounds t .. t + 3, of which `words` are the message words.
PAGEDKV_ARMV8_CRYPTO_INLINE void four_rounds(Registers& registers, uint32x4_t words,
                                             std::size_t t) {
  const uint32x4_t input = vaddq_u32(words, vld1q_u32(kSha256RoundConstants.data() + t));
  const uint32x4_t abcd = registers.abcd;
  registers.abcd = vsha256hq_u32(abcd, registers.efgh, input);
  registers.efgh = vsha256h2q_u32(registers.efgh, abcd, input);
}

// Message words t + 16 .. t + 19, from words t .. t + 15 in `w0` .. `w3`.
PAGEDKV_ARMV8_CRYPTO_INLINE uint32x4_t next_words(uint32x4_t w0, uint32x4_t w1, uint32x4_t w2,
                                                  uint32x4_t w3) {
  return vsha256su1q_u32(vsha256su0q_u32(w0, w1), w2, w3);
}

PAGEDKV_ARMV8_CRYPTO void compress(Sha256State& state, const std::byte* blocks,
                                   std::size_t num_blocks) {
  Registers registers = {vld1q_u32(state.data()), vld1q_u32(state.data() + 4)};
  for (const std::byte* block = blocks; num_blocks > 0; --num_blocks, block += kSha256BlockBytes) {
    const Registers before = registers;
    uint32x4_t w0 = load_words(block);
    uint32x4_t w1 = load_words(block + 16);
    uint32x4_t w2 = load_words(block + 32);
    uint32x4_t w3 = load_words(block + 48);
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
    registers.abcd = vaddq_u32(registers.abcd, before.abcd);
    registers.efgh = vaddq_u32(registers.efgh, before.efgh);
  }
  vst1q_u32(state.data(), registers.abcd);
  vst1q_u32(state.data() + 4, registers.efgh);
}

}  // namespace

std::optional<Sha256Implementation> find_sha256_armv8_crypto() {
  if ((getauxval(AT_HWCAP) & HWCAP_SHA2) == 0) return std::nullopt;
  return Sha256Implementation{Sha256Isa::kArmv8Crypto, compress, compress_two_in_turn<compress>,
                              digest_linked_by_copy<compress>,
                              digest_two_linked_in_turn<digest_linked_by_copy<compress>>};
}

}  // namespace pagedkv

#else

std::optional<pagedkv::Sha256Implementation> pagedkv::find_sha256_armv8_crypto() {
  return std::nullopt;
}

#endif
