#include "pagedkv/hash/hash_algorithm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "hex.h"
#include "pagedkv/hash/page_hasher.h"
#include "pagedkv/hash/sha256.h"

namespace pagedkv {
namespace {

struct Golden {
  HashAlgorithm algorithm;
  std::string name;
  std::size_t digest_bytes;
  std::string root;
  std::string page;  // of tokens 1000 to 1015
};

// Of Python's hashlib and xxhash, on what cbor2 and pickle give; tests/python computes them anew.
const std::vector<Golden> kGoldens = {
    {HashAlgorithm::kSha256Cbor, "sha256_cbor", 32,
     "9bd96a485ad84efdafb72ee48a1d7a69bcead0f8f0433173941b276b9581eef0",
     "15528b726efb88cb4d9efc583657a821bceb1f67307c6e813417567050a24fdc"},
    {HashAlgorithm::kSha256, "sha256", 32,
     "066b1e8987e027138e98701c46128929378935f9b6cd1549105ae6b4f0d71198",
     "9d9c413731095d0ee811a14814414907cafccd751ce2052f659e8e1f547aeb68"},
    {HashAlgorithm::kXxh3Cbor, "xxh3_128_cbor", 16, "a4e364baa0791a6f63bbf917db9b700d",
     "777967412d31d1130840582c1f1d727f"},
    {HashAlgorithm::kXxh3, "xxh3_128", 16, "d98f72b9c430d985211489af307f0229",
     "870181cdca2fa8be433d99a05977c5e6"},
    {HashAlgorithm::kPagedkv, "pagedkv", 32,
     "b49b493a88d1bc5c4e90f49ff77bbcd644a5fa26df591f60a2db94d95631e0be",
     "bc5a62213fea474eab9fe54479ac730824e4551cf9b56b361522be421677f47a"},
    {HashAlgorithm::kPagedkvXxh3, "pagedkv_xxh3", 16, "2c20114a86a5e4cec77129d50a22844f",
     "fa0079cb88eac9d0e8341a63e4dd8187"},
};

std::string digest(const PageHash& hash, const Golden& golden) {
  return to_hex(std::span(hash.bytes).first(golden.digest_bytes));
}

TEST(HashAlgorithmTest, GivesGoldenDigests) {
  std::vector<TokenId> tokens(16);
  std::iota(tokens.begin(), tokens.end(), 1000);
  for (const Golden& golden : kGoldens) {
    SCOPED_TRACE(golden.name);
    const PageHasher hasher(golden.algorithm);
    EXPECT_EQ(digest(hasher.root(), golden), golden.root);
    EXPECT_EQ(digest(hasher.hash_page(hasher.root(), tokens), golden), golden.page);
  }
}

TEST(HashAlgorithmTest, LeavesTheTailOfShortDigestsZero) {
  for (const Golden& golden : kGoldens) {
    const PageHasher hasher(golden.algorithm);
    const PageHash page = hasher.hash_page(hasher.root(), std::vector<TokenId>{1, 2});
    const auto is_zero = [](std::byte byte) { return byte == std::byte{}; };
    EXPECT_TRUE(std::ranges::all_of(std::span(page.bytes).subspan(golden.digest_bytes), is_zero));
    EXPECT_FALSE(std::ranges::all_of(std::span(page.bytes).first(golden.digest_bytes), is_zero));
  }
}

TEST(HashAlgorithmTest, FindsEveryAlgorithmByName) {
  ASSERT_EQ(all_hash_algorithms().size(), kGoldens.size());
  for (std::size_t i = 0; i < kGoldens.size(); ++i) {
    const Golden& golden = kGoldens[i];
    EXPECT_EQ(all_hash_algorithms()[i], golden.algorithm);
    EXPECT_EQ(name(golden.algorithm), golden.name);
    EXPECT_EQ(hash_algorithm_named(golden.name), golden.algorithm);
    EXPECT_EQ(digest_bytes(golden.algorithm), golden.digest_bytes);
  }
  EXPECT_EQ(hash_algorithm_named("xxhash"), HashAlgorithm::kXxh3);
  EXPECT_EQ(hash_algorithm_named("xxhash_cbor"), HashAlgorithm::kXxh3Cbor);
}

TEST(HashAlgorithmTest, NamesTheKnownWhenItRefuses) {
  EXPECT_THAT([] { hash_algorithm_named("md5"); },
              testing::ThrowsMessage<std::invalid_argument>(
                  "[HashAlgorithm] hash_algorithm must be one of sha256_cbor, sha256, "
                  "xxh3_128_cbor, xxh3_128, pagedkv, pagedkv_xxh3; got 'md5'"));
  EXPECT_THROW(name(static_cast<HashAlgorithm>(99)), std::invalid_argument);
}

TEST(HashAlgorithmTest, RefusesExtraKeysThatItCannotTake) {
  const std::vector<TokenId> tokens = {1, 2};
  for (const Golden& golden : kGoldens) {
    SCOPED_TRACE(golden.name);
    const PageHasher hasher(golden.algorithm);
    const auto hash = [&] { return hasher.hash_page(hasher.root(), tokens, bytes_of("\x05")); };
    if (takes_extra_keys(golden.algorithm)) {
      EXPECT_NE(hash(), hasher.hash_page(hasher.root(), tokens));
    } else {
      EXPECT_THROW(hash(), std::invalid_argument);
    }
  }
}

// The format as its comment gives it.
PageHash golden_pagedkv_page(const PageHash& parent, std::span<const TokenId> tokens,
                             std::span<const std::byte> extra) {
  std::vector<std::byte> message;
  const auto push = [&](std::uint32_t value) {
    for (int shift = 0; shift < 32; shift += 8) message.push_back(std::byte(value >> shift));
  };
  for (const TokenId token : tokens) push(static_cast<std::uint32_t>(token));
  message.insert(message.end(), extra.begin(), extra.end());
  message.insert(message.end(), parent.bytes.begin(), parent.bytes.end());
  push(static_cast<std::uint32_t>(tokens.size()));
  push(static_cast<std::uint32_t>(extra.size()));
  return {sha256(message, Sha256Isa::kPortable)};
}

TEST(HashAlgorithmTest, PagedkvHashesTokensThenKeysThenParent) {
  const PageHasher hasher(HashAlgorithm::kPagedkv);
  for (std::size_t size = 0; size <= 300; ++size) {
    std::vector<TokenId> tokens(size);
    std::iota(tokens.begin(), tokens.end(), -5);
    const auto extra = bytes_of(std::string_view("abc").substr(0, size % 4));
    ASSERT_EQ(hasher.hash_page(hasher.root(), tokens, extra),
              golden_pagedkv_page(hasher.root(), tokens, extra))
        << size;
    ASSERT_EQ(hasher.hash_page(hasher.root(), tokens),
              golden_pagedkv_page(hasher.root(), tokens, {}))
        << size;
  }
}

std::vector<PageHash> page_by_page(const PageHasher& hasher, PageHash parent,
                                   std::span<const TokenId> tokens, std::size_t page_size) {
  std::vector<PageHash> digests;
  for (; !tokens.empty(); tokens = tokens.subspan(page_size)) {
    parent = hasher.hash_page(parent, tokens.first(page_size));
    digests.push_back(parent);
  }
  return digests;
}

// Tokens of every encoded size, so that two pages may have different numbers of SHA-256 blocks.
TEST(HashAlgorithmTest, HashesManyRunsAsEachOfThem) {
  std::mt19937 random(1);
  for (const Golden& golden : kGoldens) {
    SCOPED_TRACE(golden.name);
    const PageHasher hasher(golden.algorithm);
    for (std::size_t num_runs = 0; num_runs <= 9; ++num_runs) {
      std::vector<std::vector<TokenId>> tokens(num_runs);
      std::vector<std::vector<PageHash>> digests(num_runs), expected(num_runs);
      std::vector<PageRun> runs;
      for (std::size_t i = 0; i < num_runs; ++i) {
        const std::size_t page_size = 1 + random() % 80;
        const std::size_t num_pages = random() % 12;
        for (std::size_t j = 0; j < page_size * num_pages; ++j) {
          tokens[i].push_back(static_cast<TokenId>(random() >> random() % 32));
        }
        digests[i].resize(num_pages);
        const PageHash parent = hasher.hash_page(hasher.root(), std::array{TokenId{7}});
        expected[i] = page_by_page(hasher, parent, tokens[i], page_size);
        runs.push_back({parent, tokens[i], digests[i]});
      }
      hash_runs(runs, golden.algorithm);
      ASSERT_EQ(digests, expected) << num_runs << " runs";
    }
  }
}

TEST(HashAlgorithmTest, HashesARunOfPagesAsEachOfThem) {
  std::vector<TokenId> tokens(400);
  std::iota(tokens.begin(), tokens.end(), -200);
  for (const Golden& golden : kGoldens) {
    SCOPED_TRACE(golden.name);
    const PageHasher hasher(golden.algorithm);
    for (const std::size_t page_size : {1, 3, 15, 16, 17, 32, 48, 64, 128}) {
      for (std::size_t num_pages = 0; num_pages <= tokens.size() / page_size; ++num_pages) {
        const auto run = std::span(tokens).first(num_pages * page_size);
        std::vector<PageHash> digests(num_pages);
        hash_runs(std::array{PageRun{hasher.root(), run, digests}}, golden.algorithm);
        ASSERT_EQ(digests, page_by_page(hasher, hasher.root(), run, page_size)) << num_pages;
      }
    }
  }
}

}  // namespace
}  // namespace pagedkv
