#include "pagedkv/hash/xxh3.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "hex.h"

namespace pagedkv {
namespace {

// Bytes that do not repeat: the upper byte of i * 2654435761 mod 2^32.
std::vector<std::byte> sample(std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) {
    bytes[i] = static_cast<std::byte>(static_cast<std::uint32_t>(i * 2654435761U) >> 24);
  }
  return bytes;
}

// From Python's xxhash 3: xxh3_128_hexdigest(bytes((i * 2654435761 & 2**32 - 1) >> 24 ...)).
const std::vector<std::pair<std::size_t, std::string>> kGoldens = {
    {0, "99aa06d3014798d86001c324468d497f"},     {1, "a6cd5e9392000f6ac44bdff4074eecdb"},
    {2, "5008d8f8cd45f8ecb0a5d4f167a89d5e"},     {3, "977fcbc0448b49f6e14090f554a5ea90"},
    {4, "4e82b36688c5328f4ee6926f0426173e"},     {7, "cb234cb3ad8748a95669ede136b8c8b5"},
    {8, "7b4966a681f18d5779d85adaeefd615e"},     {9, "200d098a7113e15fee5940d4df4715ae"},
    {15, "faefff06f530c07c6a3e15eb208a4d28"},    {16, "78e8ab538d3acaab37286a19cf622308"},
    {17, "1ea709ada2b9c32e33bed349ec1c0ce7"},    {32, "4e9c19033e772df434875ae75c27bc73"},
    {33, "3d498fc14d9681e19cd7914bbaf713b9"},    {64, "5834551911de3391a6e3ffeedc6985dd"},
    {65, "df2f64d70d4f0d467e0ee245264914b3"},    {96, "05431e0d5c95bd495b78a2f5ca076877"},
    {97, "fdfcca3a469c918afb99b300b0c8dc93"},    {128, "5ac741c59c95d36ae1f0636051ccd2be"},
    {129, "1240f4d960139642cfb3fed667226458"},   {160, "934688b34070b9004a430a4b144ed2d0"},
    {161, "90e957c90689d953d9653989ae78754a"},   {239, "a2bb482e57b942272c801ae791bfdf99"},
    {240, "640a6149838a7599b2e6947c477a4ab0"},   {241, "e817e20e53e42a8c2d431e984c441f15"},
    {256, "96b9c38548dd27ee1369aaf85f8b805a"},   {512, "f67f00b2ac0ea3cddcfed6ee2883acd0"},
    {1023, "5687286dd310b7db4e30bb611faa8f67"},  {1024, "df4c8b9ff9715101e99def1145f12936"},
    {1025, "63e845aab7eb695f83cba9b371e4e7f4"},  {1088, "53fd1378f51e868e8e7e69b3a7124813"},
    {2048, "fb68e3b1bb55b50253275d58cfba68fd"},  {2049, "e8a3f6e37b449e743cd32460d504d215"},
    {10000, "fbbfc7db6e89c31fa4fac952f7f219f4"},
};

TEST(Xxh3Test, EqualsTheReferenceInEveryClassOfLengths) {
  for (const auto& [size, digest] : kGoldens) {
    EXPECT_EQ(to_hex(xxh3_128(sample(size))), digest) << size << " bytes";
  }
}

TEST(Xxh3Test, EqualsTheReferenceAtEveryLength) {
  // The digests of lengths 0 to 2000, one after the other, hashed themselves.
  std::vector<std::byte> digests;
  for (std::size_t size = 0; size <= 2000; ++size) {
    const Xxh3Digest digest = xxh3_128(sample(size));
    digests.insert(digests.end(), digest.begin(), digest.end());
  }
  EXPECT_EQ(to_hex(xxh3_128(digests)), "e60ce78b6d41c7d899f4fb661012dec4");
}

TEST(Xxh3Test, NeedsNoAlignment) {
  const auto bytes = sample(1000);
  for (std::size_t shift = 0; shift < 8; ++shift) {
    const auto message = std::span(bytes).subspan(shift, 900);
    const std::vector<std::byte> copy(message.begin(), message.end());
    EXPECT_EQ(xxh3_128(message), xxh3_128(copy));
  }
}

}  // namespace
}  // namespace pagedkv
