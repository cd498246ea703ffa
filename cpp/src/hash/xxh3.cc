#include "pagedkv/hash/xxh3.h"

#include <bit>
#include <cstdint>

#include "pagedkv/hash/big_endian.h"
#include "xxh3_rounds.h"

namespace pagedkv {
namespace xxh3 {
namespace {

constexpr auto secret32 = secret_at<std::uint32_t>;

Words128 hash_empty() {
  constexpr std::uint64_t kLow = secret64(64) ^ secret64(72);
  constexpr std::uint64_t kHigh = secret64(80) ^ secret64(88);
  return {avalanche_xxh64(kLow), avalanche_xxh64(kHigh)};
}

Words128 hash_1_to_3(const std::byte* message, std::size_t size) {
  const auto byte_at = [&](std::size_t i) { return std::to_integer<std::uint32_t>(message[i]); };
  const std::uint32_t low = byte_at(size - 1) | static_cast<std::uint32_t>(size) << 8 |
                            byte_at(0) << 16 | byte_at(size / 2) << 24;
  const std::uint32_t high = std::rotl(__builtin_bswap32(low), 13);
  constexpr std::uint32_t kLow = secret32(0) ^ secret32(4);
  constexpr std::uint32_t kHigh = secret32(8) ^ secret32(12);
  return {avalanche_xxh64(low ^ kLow), avalanche_xxh64(high ^ kHigh)};
}

Words128 hash_4_to_8(const std::byte* message, std::size_t size) {
  const std::uint64_t first = load_little_endian32(message);
  const std::uint64_t last = load_little_endian32(message + size - 4);
  constexpr std::uint64_t kKey = secret64(16) ^ secret64(24);
  Words128 mixed = multiply((first | last << 32) ^ kKey, kPrime64A + (size << 2));
  mixed.high += mixed.low << 1;
  mixed.low ^= mixed.high >> 3;
  mixed.low ^= mixed.low >> 35;
  mixed.low *= kPrimeMixB;
  mixed.low ^= mixed.low >> 28;
  return {mixed.low, avalanche(mixed.high)};
}

Words128 hash_9_to_16(const std::byte* message, std::size_t size) {
  constexpr std::uint64_t kLow = secret64(32) ^ secret64(40);
  constexpr std::uint64_t kHigh = secret64(48) ^ secret64(56);
  const std::uint64_t first = load_little_endian64(message);
  const std::uint64_t last = load_little_endian64(message + size - 8);
  Words128 mixed = multiply(first ^ last ^ kLow, kPrime64A);
  mixed.low += std::uint64_t{size - 1} << 54;
  const std::uint64_t keyed = last ^ kHigh;
  mixed.high += keyed + (keyed & 0xFFFFFFFF) * (kPrime32B - 1);
  mixed.low ^= __builtin_bswap64(mixed.high);
  Words128 hash = multiply(mixed.low, kPrime64B);
  hash.high += mixed.high * kPrime64B;
  return {avalanche(hash.low), avalanche(hash.high)};
}

Words128 hash_129_to_240(const std::byte* message, std::size_t size) {
  constexpr std::size_t kFirstRounds = 4;
  constexpr std::size_t kLaterSecretOffset = 3;
  constexpr std::size_t kLastSecretOffset = 103;
  Words128 sum = {size * kPrime64A, 0};
  for (std::size_t round = 0; round < kFirstRounds; ++round) {
    mix_32(sum, message + 32 * round, message + 32 * round + 16, 32 * round);
  }
  sum = {avalanche(sum.low), avalanche(sum.high)};
  for (std::size_t round = kFirstRounds; round < size / 32; ++round) {
    mix_32(sum, message + 32 * round, message + 32 * round + 16,
           kLaterSecretOffset + 32 * (round - kFirstRounds));
  }
  mix_32(sum, message + size - 16, message + size - 32, kLastSecretOffset);
  return finish(sum, size);
}

Words128 hash(const std::byte* message, std::size_t size) {
  if (size > 240) return hash_long(message, size);
  if (size > 128) return hash_129_to_240(message, size);
  if (size > 16) return hash_17_to_128(message, size);
  if (size > 8) return hash_9_to_16(message, size);
  if (size > 3) return hash_4_to_8(message, size);
  if (size > 0) return hash_1_to_3(message, size);
  return hash_empty();
}

}  // namespace
}  // namespace xxh3

Xxh3Digest xxh3_128(std::span<const std::byte> message) {
  const xxh3::Words128 hash = xxh3::hash(message.data(), message.size());
  Xxh3Digest digest;
  store_big_endian(digest.data(), hash.high);
  store_big_endian(digest.data() + 8, hash.low);
  return digest;
}

}  // namespace pagedkv
