#include <array>
#include <cstdint>

#include "xxh3_mix.h"

namespace pagedkv::xxh3 {
namespace {

constexpr std::size_t kStripeBytes = 64;
constexpr std::size_t kSecretStep = 8;  // by which the secret moves from stripe to stripe
constexpr std::size_t kStripesPerBlock = (kSecretBytes - kStripeBytes) / kSecretStep;
constexpr std::size_t kBlockBytes = kStripesPerBlock * kStripeBytes;

constexpr std::size_t kScrambleSecretOffset = kSecretBytes - kStripeBytes;
constexpr std::size_t kLastStripeSecretOffset = kSecretBytes - kStripeBytes - 7;
constexpr std::size_t kLowSecretOffset = 11;
constexpr std::size_t kHighSecretOffset = kSecretBytes - kStripeBytes - 11;

// Eight lanes, each of its own, in the order that vector units take them.
using Lanes = std::array<std::uint64_t, 8>;

std::uint64_t secret_word(std::size_t offset, std::size_t lane) {
  return load_little_endian64(reinterpret_cast<const std::byte*>(kSecret.data()) + offset +
                              8 * lane);
}

void accumulate(Lanes& lanes, const std::byte* stripe, std::size_t secret_offset) {
  Lanes data;
  for (std::size_t lane = 0; lane < lanes.size(); ++lane) {
    data[lane] = load_little_endian64(stripe + 8 * lane);
  }
  for (std::size_t lane = 0; lane < lanes.size(); ++lane) {
    const std::uint64_t keyed = data[lane] ^ secret_word(secret_offset, lane);
    lanes[lane] += data[lane ^ 1] + (keyed & 0xFFFFFFFF) * (keyed >> 32);
  }
}

void accumulate_stripes(Lanes& lanes, const std::byte* stripes, std::size_t num_stripes) {
  for (std::size_t i = 0; i < num_stripes; ++i) {
    accumulate(lanes, stripes + i * kStripeBytes, i * kSecretStep);
  }
}

void scramble(Lanes& lanes) {
  for (std::size_t lane = 0; lane < lanes.size(); ++lane) {
    const std::uint64_t mixed = lanes[lane] ^ lanes[lane] >> 47;
    lanes[lane] = (mixed ^ secret_word(kScrambleSecretOffset, lane)) * kPrime32A;
  }
}

std::uint64_t merge(const Lanes& lanes, std::size_t secret_offset, std::uint64_t hash) {
  for (std::size_t lane = 0; lane < lanes.size(); lane += 2) {
    hash += multiply_fold(lanes[lane] ^ secret_word(secret_offset, lane),
                          lanes[lane + 1] ^ secret_word(secret_offset, lane + 1));
  }
  return avalanche(hash);
}

}  // namespace

Words128 hash_long(const std::byte* message, std::size_t size) {
  Lanes lanes = {kPrime32C, kPrime64A, kPrime64B, kPrime64C,
                 kPrime64D, kPrime32B, kPrime64E, kPrime32A};
  const std::size_t num_blocks = (size - 1) / kBlockBytes;
  for (std::size_t block = 0; block < num_blocks; ++block) {
    accumulate_stripes(lanes, message + block * kBlockBytes, kStripesPerBlock);
    scramble(lanes);
  }
  const std::size_t rest = size - 1 - num_blocks * kBlockBytes;
  accumulate_stripes(lanes, message + num_blocks * kBlockBytes, rest / kStripeBytes);
  accumulate(lanes, message + size - kStripeBytes, kLastStripeSecretOffset);
  return {merge(lanes, kLowSecretOffset, size * kPrime64A),
          merge(lanes, kHighSecretOffset, ~(size * kPrime64B))};
}

}  // namespace pagedkv::xxh3
