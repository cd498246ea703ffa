#include <benchmark/benchmark.h>

#include <array>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "pagedkv/hash/cbor.h"
#include "pagedkv/hash/page_hash_chain.h"
#include "pagedkv/hash/page_hasher.h"
#include "pagedkv/hash/sha256.h"

#if defined(PAGEDKV_HAVE_OPENSSL)
#include <openssl/sha.h>
#endif

namespace pagedkv {
namespace {

// A parent digest and 16 tokens of four bytes.
constexpr std::size_t kMessageBytes = 96;
constexpr std::int32_t kPageSize = 16;
constexpr std::size_t kPromptTokens = 8192;

const char* name(Sha256Isa isa) {
  switch (isa) {
    case Sha256Isa::kPortable:
      return "portable";
    case Sha256Isa::kX86ShaNi:
      return "sha_ni";
    case Sha256Isa::kArmv8Crypto:
      return "armv8_crypto";
  }
  return "unknown";
}

// The digest becomes the start of the next message, as in a chain of pages.
void bench_sha256(benchmark::State& state, Sha256Isa isa) {
  std::array<std::byte, kMessageBytes> message{};
  for (auto _ : state) {
    const Sha256Digest digest = sha256(message, isa);
    std::copy(digest.begin(), digest.end(), message.begin());
    benchmark::DoNotOptimize(message);
  }
}

#if defined(PAGEDKV_HAVE_OPENSSL)
void bench_sha256_openssl(benchmark::State& state) {
  std::array<unsigned char, kMessageBytes> message{};
  std::array<unsigned char, 32> digest{};
  for (auto _ : state) {
    SHA256(message.data(), message.size(), digest.data());
    std::copy(digest.begin(), digest.end(), message.begin());
    benchmark::DoNotOptimize(message);
  }
}
BENCHMARK(bench_sha256_openssl)->Name("sha256_96_bytes/openssl_one_shot");
#endif

// Tokens in [first, last], and a share of punctuation-like ones below 256.
std::vector<TokenId> random_tokens(TokenId first, TokenId last, double share_below_256) {
  std::mt19937 random(1);
  std::uniform_int_distribution<TokenId> any(first, last);
  std::uniform_int_distribution<TokenId> low(0, 255);
  std::bernoulli_distribution is_low(share_below_256);
  std::vector<TokenId> tokens(kPromptTokens);
  for (TokenId& token : tokens) token = is_low(random) ? low(random) : any(random);
  return tokens;
}

void bench_encode(benchmark::State& state, const std::vector<TokenId>& tokens) {
  std::array<std::byte, 128> buffer;
  std::size_t page = 0;
  for (auto _ : state) {
    CborWriter writer(buffer);
    writer.write_ints(std::span(tokens).subspan(page * kPageSize, kPageSize));
    benchmark::DoNotOptimize(writer);
    benchmark::ClobberMemory();
    page = (page + 1) % (kPromptTokens / kPageSize);
  }
}

// Time of one page: each has the one before as its parent.
void bench_hash_page(benchmark::State& state, const std::vector<TokenId>& tokens) {
  PageHash parent = none_hash();
  std::size_t page = 0;
  for (auto _ : state) {
    parent = hash_page(parent, std::span(tokens).subspan(page * kPageSize, kPageSize));
    page = (page + 1) % (kPromptTokens / kPageSize);
  }
  benchmark::DoNotOptimize(parent);
}

void bench_chain(benchmark::State& state, const std::vector<TokenId>& tokens) {
  const PageHash root = none_hash();
  for (auto _ : state) {
    PageHashChain chain(kPageSize, root);
    chain.extend(tokens);
    benchmark::DoNotOptimize(chain.digests().back());
  }
  const auto pages = static_cast<double>(state.iterations()) * kPromptTokens / kPageSize;
  state.counters["s/page"] =
      benchmark::Counter(pages, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void register_all() {
  for (const Sha256Isa isa : supported_sha256_isas()) {
    benchmark::RegisterBenchmark((std::string("sha256_96_bytes/") + name(isa)).c_str(),
                                 bench_sha256, isa);
  }
  const std::array<std::pair<const char*, std::vector<TokenId>>, 3> prompts = {{
      {"two_byte_tokens", random_tokens(256, 65535, 0)},
      {"vocabulary_of_50k", random_tokens(256, 50'000, 0.15)},
      {"vocabulary_of_150k", random_tokens(256, 150'000, 0.15)},
  }};
  for (const auto& [tokens_name, tokens] : prompts) {
    const std::string suffix = std::string("/") + tokens_name;
    benchmark::RegisterBenchmark(("encode_16_tokens" + suffix).c_str(), bench_encode, tokens);
    benchmark::RegisterBenchmark(("hash_page_16_tokens" + suffix).c_str(), bench_hash_page, tokens);
    benchmark::RegisterBenchmark(("hash_prompt_8k_tokens" + suffix).c_str(), bench_chain, tokens);
  }
}

const bool kRegistered = (register_all(), true);

}  // namespace
}  // namespace pagedkv
