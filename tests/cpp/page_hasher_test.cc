#include "pagedkv/hash/page_hasher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "hex.h"
#include "pagedkv/hash/page_hash_chain.h"
#include "pagedkv/hash/sha256.h"

namespace pagedkv {
namespace {

using Bytes = std::vector<std::byte>;

void push_number(Bytes& bytes, std::uint64_t value, int num_bytes) {
  for (int shift = 8 * (num_bytes - 1); shift >= 0; shift -= 8) {
    bytes.push_back(static_cast<std::byte>(value >> shift));
  }
}

// The golden model: RFC 8949 word for word, one `if` a case.
void push_head(Bytes& bytes, unsigned major, std::uint64_t value) {
  if (value < 24) return push_number(bytes, major << 5 | value, 1);
  const unsigned log2_bytes = value < 0x100 ? 0 : value < 0x10000 ? 1 : value < 0x100000000 ? 2 : 3;
  push_number(bytes, major << 5 | (24 + log2_bytes), 1);
  push_number(bytes, value, 1 << log2_bytes);
}

PageHash golden_page(const PageHash& parent, std::span<const TokenId> tokens, const Bytes& extra) {
  Bytes bytes;
  push_head(bytes, 4, 3);
  push_head(bytes, 2, parent.bytes.size());
  bytes.insert(bytes.end(), parent.bytes.begin(), parent.bytes.end());
  push_head(bytes, 4, tokens.size());
  for (const std::int64_t token : tokens) {
    const bool negative = token < 0;
    push_head(bytes, negative ? 1 : 0, static_cast<std::uint64_t>(negative ? -1 - token : token));
  }
  const Bytes null = {std::byte{0xF6}};
  const Bytes& last = extra.empty() ? null : extra;
  bytes.insert(bytes.end(), last.begin(), last.end());
  return {sha256(bytes, Sha256Isa::kPortable)};
}

std::vector<PageHash> golden_chain(std::size_t page_size, const PageHash& root,
                                   std::span<const TokenId> tokens) {
  std::vector<PageHash> digests;
  PageHash parent = root;
  for (std::size_t begin = 0; begin + page_size <= tokens.size(); begin += page_size) {
    parent = golden_page(parent, tokens.subspan(begin, page_size), {});
    digests.push_back(parent);
  }
  return digests;
}

// Every size of encoded token is about as likely as the others.
TokenId random_token(std::mt19937& random) {
  const unsigned bits = random() % 32;
  const auto value = static_cast<TokenId>(random() & ((1U << bits) - 1));
  return random() % 8 == 0 ? -1 - value : value;
}

std::vector<TokenId> random_tokens(std::mt19937& random, std::size_t count) {
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) token = random_token(random);
  return tokens;
}

TEST(PageHasherTest, GivesTheDigestsOfVllm) {
  std::vector<TokenId> tokens(16);
  std::iota(tokens.begin(), tokens.end(), 1000);
  const PageHash root = none_hash();
  EXPECT_EQ(to_hex(root.bytes), "9bd96a485ad84efdafb72ee48a1d7a69bcead0f8f0433173941b276b9581eef0");
  EXPECT_EQ(to_hex(hash_page(root, tokens).bytes),
            "15528b726efb88cb4d9efc583657a821bceb1f67307c6e813417567050a24fdc");
}

TEST(PageHasherTest, SeparatesSeeds) {
  EXPECT_EQ(none_hash("vllm-none-hash"), none_hash());
  EXPECT_NE(none_hash("0"), none_hash());
  EXPECT_EQ(to_hex(none_hash("").bytes), to_hex(sha256(bytes_of("\x60"))));
  EXPECT_EQ(none_hash(std::string(2000, 's')).bytes,
            sha256(bytes_of("\x79\x07\xd0" + std::string(2000, 's'))));
}

TEST(PageHasherTest, ChangesWithParentTokensAndExtraKeys) {
  const std::vector<TokenId> tokens = {1, 2, 3};
  const PageHash page = hash_page(none_hash(), tokens);
  EXPECT_NE(hash_page(page, tokens), page);
  EXPECT_NE(hash_page(none_hash(), std::vector<TokenId>{1, 2, 4}), page);
  EXPECT_NE(hash_page(none_hash(), tokens, bytes_of("\x01")), page);
  EXPECT_EQ(hash_page(none_hash(), tokens, bytes_of("\xf6")), page)
      << "null is what none encodes to";
}

TEST(PageHasherTest, TakesTheWholeRangeOfTokens) {
  const std::vector<TokenId> tokens = {
      0,  23,  24,  255,  256,  65535,  65536,  std::numeric_limits<TokenId>::max(),
      -1, -24, -25, -256, -257, -65536, -65537, std::numeric_limits<TokenId>::min()};
  EXPECT_EQ(hash_page(none_hash(), tokens), golden_page(none_hash(), tokens, {}));
}

TEST(PageHasherTest, MatchesTheGoldenModelAtEverySize) {
  for (std::size_t size = 0; size <= 300; ++size) {
    SCOPED_TRACE(testing::Message() << size << " tokens");
    std::mt19937 random(static_cast<unsigned>(size));
    const auto tokens = random_tokens(random, size);
    const PageHash parent = {sha256(bytes_of(std::to_string(size)))};
    Bytes extra;
    push_head(extra, 2, size);
    extra.resize(extra.size() + size, std::byte{7});
    ASSERT_EQ(hash_page(parent, tokens), golden_page(parent, tokens, {}));
    ASSERT_EQ(hash_page(parent, tokens, extra), golden_page(parent, tokens, extra));
  }
}

TEST(PageHasherTest, MatchesTheGoldenModelForTwoByteTokens) {
  std::mt19937 random(1);
  std::uniform_int_distribution<TokenId> two_bytes(256, 65535);
  for (std::size_t size = 0; size <= 64; ++size) {
    std::vector<TokenId> tokens(size);
    for (TokenId& token : tokens) token = two_bytes(random);
    ASSERT_EQ(hash_page(none_hash(), tokens), golden_page(none_hash(), tokens, {})) << size;
  }
}

TEST(PageHashChainTest, StartsEmpty) {
  PageHashChain chain(4);
  EXPECT_EQ(chain.page_size(), 4);
  chain.extend({});
  chain.extend(std::vector<TokenId>{1, 2, 3});
  EXPECT_TRUE(chain.digests().empty());
}

TEST(PageHashChainTest, RefusesPagesWithoutTokens) {
  EXPECT_THROW(PageHashChain(0), std::invalid_argument);
  EXPECT_THROW(PageHashChain(-1), std::invalid_argument);
}

TEST(PageHashChainTest, EqualsPagesHashedOneAtATime) {
  std::mt19937 random(1);
  const auto tokens = random_tokens(random, 1000);
  PageHashChain chain(16);
  chain.extend(tokens);
  EXPECT_THAT(chain.digests(), testing::ElementsAreArray(golden_chain(16, none_hash(), tokens)));
}

TEST(PageHashChainTest, HashesOnlyWhatBecameFull) {
  std::vector<TokenId> tokens = {1, 2, 3, 4, 5};
  PageHashChain chain(2);
  chain.extend(tokens);
  const std::vector<PageHash> before(chain.digests().begin(), chain.digests().end());
  tokens[0] = 99;  // in a page that is hashed already, so not read again
  tokens.push_back(6);
  chain.extend(tokens);
  ASSERT_EQ(chain.digests().size(), 3U);
  EXPECT_EQ(chain.digests()[0], before[0]);
  EXPECT_EQ(chain.digests()[2], hash_page(before[1], std::vector<TokenId>{5, 6}));
}

TEST(PageHashChainTest, KeepsItsDigestsWhenTheSequenceIsShorter) {
  PageHashChain chain(2);
  chain.extend(std::vector<TokenId>{1, 2, 3, 4});
  chain.extend(std::vector<TokenId>{1, 2});
  EXPECT_EQ(chain.digests().size(), 2U);
}

TEST(PageHashChainTest, AppendsAPageWithExtraKeys) {
  const std::vector<TokenId> tokens = {1, 2, 3, 4};
  PageHashChain chain(2);
  chain.append_page(std::span(tokens).first(2), bytes_of("\x05"));
  chain.extend(tokens);
  const PageHash first = hash_page(none_hash(), std::span(tokens).first(2), bytes_of("\x05"));
  EXPECT_THAT(chain.digests(),
              testing::ElementsAre(first, hash_page(first, std::span(tokens).last(2))));
}

TEST(PageHashChainTest, RefusesAPageOfTheWrongSize) {
  PageHashChain chain(2);
  EXPECT_THROW(chain.append_page(std::vector<TokenId>{1}), std::invalid_argument);
  EXPECT_TRUE(chain.digests().empty());
}

TEST(PageHashChainTest, TruncatesAndHashesOtherTokensInstead) {
  PageHashChain chain(2);
  chain.extend(std::vector<TokenId>{1, 2, 3, 4, 5, 6});
  chain.truncate(5);
  EXPECT_EQ(chain.digests().size(), 3U);
  chain.truncate(1);
  EXPECT_EQ(chain.digests().size(), 1U);
  const std::vector<TokenId> other = {1, 2, 7, 8};
  chain.extend(other);
  EXPECT_THAT(chain.digests(), testing::ElementsAreArray(golden_chain(2, none_hash(), other)));
  chain.truncate(0);
  EXPECT_TRUE(chain.digests().empty());
}

TEST(PageHashChainTest, HashesTheKeysOfEachPage) {
  const ExtraKeys keys(std::nullopt, {{"cat", 3, 2}}, "salt");
  const std::vector<TokenId> tokens = {1, 2, 3, 4, 5, 6, 7, 8};
  PageHashChain chain(2);
  chain.extend(tokens, keys);
  PageHash parent = none_hash();
  for (std::size_t page = 0; page < 4; ++page) {
    std::vector<std::byte> extra;
    keys.encode_page(page, 2, extra);
    EXPECT_EQ(extra.empty(), page == 3);
    parent = golden_page(parent, std::span(tokens).subspan(2 * page, 2), extra);
    EXPECT_EQ(chain.digests()[page], parent);
  }
}

TEST(PageHashChainTest, RefusesKeysThatTheAlgorithmCannotTake) {
  PageHashChain chain(2, PageHasher(HashAlgorithm::kSha256));
  const ExtraKeys keys(std::nullopt, {{"cat", 3, 2}}, std::nullopt);
  EXPECT_THROW(chain.extend(std::vector<TokenId>{1, 2, 3, 4}, keys), std::invalid_argument);
  EXPECT_EQ(chain.digests().size(), 1U);
}

TEST(PageHashChainTest, MatchesTheGoldenModelUnderRandomExtends) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    const auto page_size = static_cast<std::int32_t>(1 + random() % 20);
    const PageHasher hasher(HashAlgorithm::kSha256Cbor, std::to_string(seed));
    PageHashChain chain(page_size, hasher);
    std::vector<TokenId> tokens;
    for (int step = 0; step < 30; ++step) {
      const auto added = random_tokens(random, random() % (random() % 4 == 0 ? 100 : 4));
      tokens.insert(tokens.end(), added.begin(), added.end());
      chain.extend(tokens);
      ASSERT_THAT(chain.digests(),
                  testing::ElementsAreArray(
                      golden_chain(static_cast<std::size_t>(page_size), hasher.root(), tokens)));
    }
  }
}

}  // namespace
}  // namespace pagedkv
