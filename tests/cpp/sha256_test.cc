#include "pagedkv/hash/sha256.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "hex.h"

namespace pagedkv {
namespace {

static_assert(sha256_padded_bytes(0) == 64);
static_assert(sha256_padded_bytes(55) == 64);
static_assert(sha256_padded_bytes(56) == 128, "the mark and the length need nine bytes");
static_assert(sha256_padded_bytes(64) == 128);

struct Vector {
  std::string message;
  std::string digest;
};

// FIPS 180-4 and NIST's example files, and lengths around the end of the first block.
std::vector<Vector> known_vectors() {
  return {
      {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
      {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
      {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
      {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
       "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
       "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
      {std::string(1'000'000, 'a'),
       "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
  };
}

std::vector<std::byte> random_bytes(std::size_t size) {
  std::mt19937 random(static_cast<unsigned>(size));
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

class Sha256IsaTest : public testing::TestWithParam<Sha256Isa> {};

TEST_P(Sha256IsaTest, GivesTheKnownDigests) {
  for (const auto& [message, digest] : known_vectors()) {
    EXPECT_EQ(to_hex(sha256(bytes_of(message), GetParam())), digest) << message.size() << " bytes";
  }
}

TEST_P(Sha256IsaTest, AgreesWithPortableAtEveryLength) {
  for (std::size_t size = 0; size <= 300; ++size) {
    const auto message = random_bytes(size);
    ASSERT_EQ(to_hex(sha256(message, GetParam())), to_hex(sha256(message, Sha256Isa::kPortable)))
        << size << " bytes";
  }
}

TEST_P(Sha256IsaTest, TakesUnalignedMessages) {
  const auto bytes = random_bytes(400);
  for (std::size_t offset = 0; offset < 64; ++offset) {
    const auto message = std::span(bytes).subspan(offset, 300);
    ASSERT_EQ(to_hex(sha256(message, GetParam())), to_hex(sha256(message, Sha256Isa::kPortable)))
        << "offset " << offset;
  }
}

INSTANTIATE_TEST_SUITE_P(Supported, Sha256IsaTest,
                         testing::ValuesIn(supported_sha256_isas().begin(),
                                           supported_sha256_isas().end()));

TEST(Sha256Test, AlwaysHasThePortableImplementationLast) {
  ASSERT_FALSE(supported_sha256_isas().empty());
  EXPECT_EQ(supported_sha256_isas().back(), Sha256Isa::kPortable);
}

TEST(Sha256Test, RefusesAnUnsupportedIsa) {
  const auto supported = supported_sha256_isas();
  for (const Sha256Isa isa : {Sha256Isa::kX86ShaNi, Sha256Isa::kArmv8Crypto}) {
    if (std::find(supported.begin(), supported.end(), isa) != supported.end()) continue;
    EXPECT_THROW(sha256({}, isa), std::invalid_argument);
  }
}

TEST(Sha256Test, DefaultsToTheSameDigest) {
  for (const auto& [message, digest] : known_vectors()) {
    EXPECT_EQ(to_hex(sha256(bytes_of(message))), digest) << message.size() << " bytes";
  }
}

TEST(Sha256Test, InPlaceAgreesAndTouchesOnlyThePaddedSize) {
  for (std::size_t size = 0; size <= 300; ++size) {
    const auto message = random_bytes(size);
    const std::size_t padded_bytes = sha256_padded_bytes(size);
    std::vector<std::byte> buffer(padded_bytes + 8, std::byte{0xCC});
    std::copy(message.begin(), message.end(), buffer.begin());
    ASSERT_EQ(to_hex(sha256_in_place(buffer, size)), to_hex(sha256(message))) << size << " bytes";
    EXPECT_EQ(to_hex(std::span(buffer).subspan(padded_bytes)), "cccccccccccccccc");
    EXPECT_TRUE(std::equal(message.begin(), message.end(), buffer.begin()));
  }
}

}  // namespace
}  // namespace pagedkv
