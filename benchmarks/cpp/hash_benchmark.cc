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
#include "pagedkv/hash/xxh3.h"

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
void bench_hash_page(benchmark::State& state, const std::vector<TokenId>& tokens,
                     HashAlgorithm algorithm) {
  const PageHasher hasher(algorithm);
  PageHash parent = hasher.root();
  std::size_t page = 0;
  for (auto _ : state) {
    parent = hasher.hash_page(parent, std::span(tokens).subspan(page * kPageSize, kPageSize));
    page = (page + 1) % (kPromptTokens / kPageSize);
  }
  benchmark::DoNotOptimize(parent);
}

void bench_chain(benchmark::State& state, const std::vector<TokenId>& tokens,
                 HashAlgorithm algorithm, const ExtraKeys& extra_keys) {
  const PageHasher hasher(algorithm);
  for (auto _ : state) {
    PageHashChain chain(kPageSize, hasher);
    chain.extend(tokens, extra_keys);
    benchmark::DoNotOptimize(chain.digests().back());
  }
  state.SetItemsProcessed(state.iterations() * std::int64_t{kPromptTokens / kPageSize});  // pages
}

// Several prompts at once, as `match_requests` hashes those that arrive together.
void bench_runs(benchmark::State& state, const std::vector<TokenId>& tokens,
                HashAlgorithm algorithm, std::size_t num_prompts) {
  const PageHasher hasher(algorithm);
  std::vector<std::vector<PageHash>> digests(num_prompts);
  std::vector<PageRun> runs;
  for (auto& each : digests) {
    each.resize(kPromptTokens / kPageSize);
    runs.push_back({hasher.root(), tokens, each});
  }
  for (auto _ : state) {
    hash_runs(runs, algorithm);
    benchmark::DoNotOptimize(digests);
  }
  state.SetItemsProcessed(state.iterations() *
                          static_cast<std::int64_t>(num_prompts * kPromptTokens));  // tokens
  state.counters["ns_per_page"] =
      benchmark::Counter(static_cast<double>(state.iterations()) *
                             static_cast<double>(num_prompts) * (kPromptTokens / kPageSize) * 1e-9,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void bench_xxh3(benchmark::State& state) {
  const std::vector<std::byte> message(static_cast<std::size_t>(state.range(0)), std::byte{7});
  for (auto _ : state) benchmark::DoNotOptimize(xxh3_128(message));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(bench_xxh3)->Name("xxh3_128")->Arg(90)->Arg(200)->Arg(1 << 20);

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
    for (const HashAlgorithm algorithm : all_hash_algorithms()) {
      const std::string suffixes = std::string("/").append(name(algorithm)).append(suffix);
      benchmark::RegisterBenchmark(("hash_page_16_tokens" + suffixes).c_str(), bench_hash_page,
                                   tokens, algorithm);
      benchmark::RegisterBenchmark(("hash_prompt_8k_tokens" + suffixes).c_str(), bench_chain,
                                   tokens, algorithm, ExtraKeys());
    }
    for (const HashAlgorithm algorithm : {HashAlgorithm::kSha256Cbor, HashAlgorithm::kPagedkv}) {
      for (const std::size_t num_prompts : {1, 2, 8}) {
        const std::string prompts_name = "hash_" + std::to_string(num_prompts) + "_prompts/";
        benchmark::RegisterBenchmark((prompts_name + std::string(name(algorithm)) + suffix).c_str(),
                                     bench_runs, tokens, algorithm, num_prompts);
      }
    }
    const ExtraKeys keys(LoraKey{"adapter", "/models/adapter"}, {{"image", 100, 576}}, "tenant");
    benchmark::RegisterBenchmark(("hash_prompt_8k_tokens/sha256_cbor_with_keys" + suffix).c_str(),
                                 bench_chain, tokens, HashAlgorithm::kSha256Cbor, keys);
  }
}

const bool kRegistered = (register_all(), true);

}  // namespace
}  // namespace pagedkv
