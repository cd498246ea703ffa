#include "cbor_ints.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

#include <array>

// The rest of the library is built for any x86-64; only these functions use the extension.
#define PAGEDKV_SSSE3 __attribute__((target("ssse3")))
#define PAGEDKV_SSSE3_INLINE PAGEDKV_SSSE3 __attribute__((always_inline)) inline

namespace pagedkv {
namespace {

// Two integers are encoded by one byte shuffle. Which one depends on their sizes: a size class is
// 0 for a value below 24, 1, 2 and 3 for one, two and four bytes behind the head.
constexpr std::array<std::size_t, 4> kEncodedBytes = {1, 2, 3, 5};
constexpr std::uint8_t kZero = 0x80;  // a shuffle index that gives zero

struct alignas(16) PairLayout {
  std::array<std::uint8_t, 16> shuffle;
  std::array<std::uint8_t, 16> heads;
};

constexpr std::size_t pair_key(std::size_t first_class, std::size_t second_class) {
  return first_class + 4 * second_class;
}

constexpr PairLayout make_layout(std::array<std::size_t, 2> classes) {
  PairLayout layout{};
  layout.shuffle.fill(kZero);
  std::size_t begin = 0;
  for (std::size_t which = 0; which < 2; ++which) {
    const std::size_t size_class = classes[which];
    const std::size_t end = begin + kEncodedBytes[size_class];
    if (size_class > 0) layout.heads[begin++] = static_cast<std::uint8_t>(23 + size_class);
    for (std::size_t at = begin; at < end; ++at) {
      layout.shuffle[at] = static_cast<std::uint8_t>(4 * which + (end - 1 - at));
    }
    begin = end;
  }
  return layout;
}

struct PairLayouts {
  std::array<PairLayout, 16> layouts{};
  std::array<std::uint8_t, 16> num_bytes{};

  constexpr PairLayouts() {
    for (std::size_t first = 0; first < 4; ++first) {
      for (std::size_t second = 0; second < 4; ++second) {
        layouts[pair_key(first, second)] = make_layout({first, second});
        num_bytes[pair_key(first, second)] =
            static_cast<std::uint8_t>(kEncodedBytes[first] + kEncodedBytes[second]);
      }
    }
  }
};

constexpr PairLayouts kPairs;

__m128i load(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }

// The size class of each of four values, negated.
PAGEDKV_SSSE3_INLINE __m128i negated_classes(__m128i values) {
  return _mm_add_epi32(_mm_add_epi32(_mm_cmpgt_epi32(values, _mm_set1_epi32(23)),
                                     _mm_cmpgt_epi32(values, _mm_set1_epi32(0xFF))),
                       _mm_cmpgt_epi32(values, _mm_set1_epi32(0xFFFF)));
}

// The keys of the four pairs in eight values.
PAGEDKV_SSSE3_INLINE __m128i pair_keys(__m128i low, __m128i high) {
  const __m128i classes = _mm_packs_epi32(negated_classes(low), negated_classes(high));
  const __m128i weights = _mm_set1_epi32(static_cast<int>(0xFFFCFFFF));  // -1 and -4
  return _mm_madd_epi16(classes, weights);
}

// Encodes the two values in the lower half of `pair`.
PAGEDKV_SSSE3_INLINE std::byte* put_pair(std::byte* out, __m128i pair, std::uint32_t key) {
  const PairLayout& layout = kPairs.layouts[key];
  const __m128i bytes = _mm_shuffle_epi8(pair, load(layout.shuffle.data()));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_or_si128(bytes, load(layout.heads.data())));
  return out + kPairs.num_bytes[key];
}

PAGEDKV_SSSE3_INLINE __m128i upper_half(__m128i vector) {
  return _mm_unpackhi_epi64(vector, vector);
}

// Takes eight values at a time, and stops where one is negative.
PAGEDKV_SSSE3 std::byte* put_ints(std::byte* out, std::span<const std::int32_t>& values) {
  const std::int32_t* next = values.data();  // locals, since the bytes written could alias `values`
  std::size_t left = values.size();
  for (; left >= 8; left -= 8, next += 8) {
    const __m128i low = load(next);
    const __m128i high = load(next + 4);
    if (_mm_movemask_ps(_mm_castsi128_ps(_mm_or_si128(low, high))) != 0) break;
    const __m128i keys = pair_keys(low, high);
    const auto keys01 = static_cast<std::uint64_t>(_mm_cvtsi128_si64(keys));
    const auto keys23 = static_cast<std::uint64_t>(_mm_cvtsi128_si64(upper_half(keys)));
    out = put_pair(out, low, static_cast<std::uint32_t>(keys01));
    out = put_pair(out, upper_half(low), static_cast<std::uint32_t>(keys01 >> 32));
    out = put_pair(out, high, static_cast<std::uint32_t>(keys23));
    out = put_pair(out, upper_half(high), static_cast<std::uint32_t>(keys23 >> 32));
  }
  values = {next, left};
  return out;
}

bool cpu_has_ssse3() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_SSSE3) != 0;
}

}  // namespace

PutCborInts* find_cbor_ints_x86_ssse3() { return cpu_has_ssse3() ? put_ints : nullptr; }

}  // namespace pagedkv

#else

pagedkv::PutCborInts* pagedkv::find_cbor_ints_x86_ssse3() { return nullptr; }

#endif
