// The page pool and its parts against what one would take from the standard library: the LRU
// order as a list with an index of iterators, the prefix index as an unordered map. Pools of three
// sizes, in one run: the cost of an operation must not grow with the pool.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <list>
#include <random>
#include <span>
#include <unordered_map>
#include <vector>

#include "pagedkv/policy/group_policy.h"
#include "pagedkv/pool/page_pool.h"

namespace pagedkv {
namespace {

constexpr std::int64_t kSmall = 100'000;
constexpr std::int64_t kMedium = 1'000'000;
constexpr std::int64_t kLarge = 10'000'000;

// Pages of a step: what a decode batch takes and gives back.
constexpr std::size_t kBatch = 64;

// SplitMix64 (Steele, Lea and Flood, 2014).
std::uint64_t mixed(std::uint64_t number) {
  number = (number ^ (number >> 30)) * 0xbf58476d1ce4e5b9U;
  number = (number ^ (number >> 27)) * 0x94d049bb133111ebU;
  return number ^ (number >> 31);
}

PageHash hash_of(std::uint64_t number) {
  PageHash hash;
  for (std::size_t word = 0; word < 4; ++word) {
    const std::uint64_t bits = mixed((4 * number + word + 1) * 0x9e3779b97f4a7c15U);
    std::memcpy(hash.bytes.data() + 8 * word, &bits, sizeof bits);
  }
  return hash;
}

std::vector<PageHash> hashes_of(std::size_t count) {
  std::vector<PageHash> hashes;
  for (std::size_t i = 0; i < count; ++i) hashes.push_back(hash_of(i));
  return hashes;
}

struct HashOfPageHash {
  std::size_t operator()(const PageHash& hash) const {
    std::size_t word;
    std::memcpy(&word, hash.bytes.data(), sizeof word);
    return word;
  }
};

void per_page(benchmark::State& state, std::size_t pages) {
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * pages));
}

void construct(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(PagePool(static_cast<PageId>(state.range(0))));
  per_page(state, static_cast<std::size_t>(state.range(0)));
}
BENCHMARK(construct)->Arg(kSmall)->Arg(kMedium)->Arg(kLarge)->Unit(benchmark::kMillisecond);

// Allocates a batch, makes it findable, frees it: every page that is handed out evicts one.
void pool_allocate_cache_free(benchmark::State& state) {
  const auto num_pages = static_cast<std::size_t>(state.range(0));
  PagePool pool(static_cast<PageId>(num_pages));
  const auto hashes = hashes_of(2 * num_pages);
  std::array<PageId, kBatch> pages;
  std::size_t next = 0;
  for (auto _ : state) {
    if (!pool.allocate(pages)) state.SkipWithError("the pool is full");
    for (PageId page : pages) pool.cache(page, hashes[next++ % hashes.size()], 0);
    pool.free(pages);
  }
  per_page(state, kBatch);
}
BENCHMARK(pool_allocate_cache_free)->Arg(kSmall)->Arg(kMedium)->Arg(kLarge);

// The same with `state.range(1)` tenants, each with pages of five priorities, some with a time
// limit, and a quota that each comes over now and then. Lanes in use: up to ten a tenant and more.
void pool_retained_allocate_cache_free(benchmark::State& state) {
  const auto num_pages = static_cast<std::size_t>(state.range(0));
  const std::int64_t num_tenants = state.range(1);
  PagePool pool(static_cast<PageId>(num_pages));
  for (TenantId tenant = 0; tenant < num_tenants; ++tenant) {
    pool.set_tenant_quota(tenant, static_cast<PageId>(state.range(0) / num_tenants));
  }
  const auto hashes = hashes_of(2 * num_pages);
  std::array<PageId, kBatch> pages;
  std::size_t next = 0;
  std::mt19937_64 random(1);
  const auto step = [&] {
    RetentionTerm term{.tenant = static_cast<TenantId>(random() % num_tenants)};
    term.priority = static_cast<std::int32_t>(25 * (random() % 5));
    if (random() % 2 == 0) term.ttl = 100;
    if (!pool.allocate(pages, {.term = term})) state.SkipWithError("the pool is full");
    for (PageId page : pages) pool.cache(page, hashes[next++ % hashes.size()], 0);
    pool.free(pages);
    pool.advance_time(pool.now() + 1);
  };
  for (std::size_t i = 0; i < 2 * num_pages / kBatch; ++i) step();  // until all pages have content
  for (auto _ : state) step();
  per_page(state, kBatch);
}
BENCHMARK(pool_retained_allocate_cache_free)->ArgsProduct({{kSmall, kMedium, kLarge}, {1, 100}});

// The same on a list, a vector of iterators into it, and an unordered map.
void std_allocate_cache_free(benchmark::State& state) {
  const auto num_pages = static_cast<std::size_t>(state.range(0));
  std::list<PageId> order;
  std::vector<std::list<PageId>::iterator> place;
  for (std::size_t i = 0; i < num_pages; ++i) {
    place.push_back(order.insert(order.end(), static_cast<PageId>(i)));
  }
  std::unordered_map<PageHash, PageId, HashOfPageHash> index(num_pages);
  std::vector<const PageHash*> content(num_pages);
  const auto hashes = hashes_of(2 * num_pages);
  std::array<std::size_t, kBatch> pages;
  std::size_t next = 0;
  for (auto _ : state) {
    for (std::size_t& page : pages) {
      page = static_cast<std::size_t>(order.front());
      order.pop_front();
      if (content[page] != nullptr) index.erase(*content[page]);
    }
    for (std::size_t page : pages) {
      content[page] = &hashes[next++ % hashes.size()];
      index.emplace(*content[page], static_cast<PageId>(page));
    }
    for (std::size_t page : pages)
      place[page] = order.insert(order.end(), static_cast<PageId>(page));
  }
  per_page(state, kBatch);
}
BENCHMARK(std_allocate_cache_free)->Arg(kSmall)->Arg(kMedium)->Arg(kLarge);

// Looks prefixes of 64 pages up in a pool whose pages are all cached.
void pool_find(benchmark::State& state) {
  const auto num_pages = static_cast<std::size_t>(state.range(0));
  PagePool pool(static_cast<PageId>(num_pages));
  std::vector<PageId> pages(num_pages - 1);
  if (!pool.allocate(pages)) state.SkipWithError("the pool is full");
  const auto hashes = hashes_of(num_pages);
  for (PageId page : pages) pool.cache(page, hashes[static_cast<std::size_t>(page)], 0);
  std::mt19937_64 random(1);
  for (auto _ : state) {
    const std::size_t first = 1 + random() % (num_pages - kBatch - 1);
    for (std::size_t i = first; i < first + kBatch; ++i) {
      benchmark::DoNotOptimize(pool.find(hashes[i], 0));
    }
  }
  per_page(state, kBatch);
}
BENCHMARK(pool_find)->Arg(kSmall)->Arg(kMedium)->Arg(kLarge);

// Looks up one prompt of 131,072 tokens, all of whose pages are cached, scattered over the pool.
void match_128k_tokens(benchmark::State& state) {
  constexpr std::int32_t kPageSize = 16;
  constexpr std::int32_t kNumTokens = 131'072;
  const auto num_pages = static_cast<std::size_t>(state.range(0));
  PagePool pool(static_cast<PageId>(num_pages));
  std::vector<PageId> pages(num_pages - 1);
  if (!pool.allocate(pages)) state.SkipWithError("the pool is full");
  std::shuffle(pages.begin(), pages.end(), std::mt19937_64(1));
  const auto hashes = hashes_of(num_pages);
  for (std::size_t i = 0; i < pages.size(); ++i) pool.cache(pages[i], hashes[i], 0);
  const auto policy = make_policy(
      0, FullAttentionSpec(
             {.page_size = kPageSize, .num_kv_heads = 1, .head_size = 1, .dtype = DType("int8")}));
  const std::size_t num_prompts = (num_pages - 1) / (kNumTokens / kPageSize);
  std::vector<PageId> hit;
  std::size_t prompt = 0;
  for (auto _ : state) {
    const auto of_prompt = std::span(hashes).subspan(prompt * (kNumTokens / kPageSize));
    if (policy->find_longest_hit(pool, {of_prompt, 1}, kNumTokens, 0, hit) != kNumTokens) {
      state.SkipWithError("not all of the prompt was found");
    }
    prompt = (prompt + 1) % num_prompts;
  }
  per_page(state, kNumTokens / kPageSize);
}
BENCHMARK(match_128k_tokens)->Arg(kSmall)->Arg(kMedium)->Arg(kLarge)->Unit(benchmark::kMicrosecond);

void std_find(benchmark::State& state) {
  const auto num_pages = static_cast<std::size_t>(state.range(0));
  std::unordered_map<PageHash, PageId, HashOfPageHash> index(num_pages);
  const auto hashes = hashes_of(num_pages);
  for (std::size_t i = 0; i < num_pages; ++i) index.emplace(hashes[i], static_cast<PageId>(i));
  std::mt19937_64 random(1);
  for (auto _ : state) {
    const std::size_t first = 1 + random() % (num_pages - kBatch - 1);
    for (std::size_t i = first; i < first + kBatch; ++i) {
      benchmark::DoNotOptimize(index.find(hashes[i])->second);
    }
  }
  per_page(state, kBatch);
}
BENCHMARK(std_find)->Arg(kSmall)->Arg(kMedium)->Arg(kLarge);

}  // namespace
}  // namespace pagedkv
