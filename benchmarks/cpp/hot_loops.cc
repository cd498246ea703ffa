// One hot loop of the manager, run a given number of times, for benchmarks/instruction_counts.py:
//
//   hot_loops WORKLOAD REPEATS
//
// All that is to be counted happens inside `measured`, which callgrind finds by its name. Requests
// are made, and their digests computed, outside of it: hashing depends on the instructions a CPU
// has for it, and would drown the rest. Prints one line of JSON. Exits with 2 for wrong arguments,
// with 1 if the loop did not do what its name says.
#include <array>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "pagedkv/batch/batch_tables.h"
#include "pagedkv/batch/step.h"
#include "pagedkv/manager/cache_manager.h"
#include "pagedkv/manager/request.h"
#include "pagedkv/spec/cache_group_spec.h"

/// Calls `call(state)`, and has a name of its own in the binary.
extern "C" [[gnu::noinline]] void measured(void (*call)(void*), void* state) {
  call(state);
  // The call must not be the last thing done: as a jump, it would not come back here.
  __asm__ volatile("" ::: "memory");
}

namespace pagedkv {
namespace {

constexpr std::int32_t kPageSize = 16;
constexpr std::int32_t kMaxModelLen = 131'072 + 1;

// Read anew for each call, so that no compiler makes clones of `measured` with other names.
void (*volatile the_measured)(void (*)(void*), void*) = measured;

/// Calls `call` where its instructions are counted.
template <typename Call>
void count(Call call) {
  the_measured([](void* state) { (*static_cast<Call*>(state))(); }, &call);
}

void check(bool holds, const char* rule) {
  if (!holds) throw std::logic_error(rule);
}

/// A manager of one group of full attention, and where its requests come from.
class Loop {
 public:
  explicit Loop(PageId num_pages) : manager_(num_pages, groups(), kMaxModelLen, options()) {}

  CacheManager& manager() { return manager_; }

  /// A request of random tokens, with its digests.
  Request& make(std::int32_t num_tokens) {
    std::vector<TokenId> tokens(static_cast<std::size_t>(num_tokens));
    for (TokenId& token : tokens) token = next_token();
    return make(std::move(tokens));
  }

  /// The tokens of another request.
  Request& make_as(const Request& other) {
    return make({other.tokens().begin(), other.tokens().end()});
  }

  /// Appends a token to a request, and hashes the page that it may fill.
  void say(Request& request) {
    request.append(next_token());
    request.page_hashes(kPageSize, manager_.hasher());
  }

  /// Computes all of a prompt, in one step.
  void prefill(Request& request) {
    Request* const requests[] = {&request};
    const std::int32_t num_new_tokens[] = {request.num_tokens()};
    const StepGrant grant = allocate_step(manager_, requests, {.num_new_tokens = num_new_tokens});
    check(grant.num_requests == 1, "the pool has room for a prompt");
    commit_step(manager_, requests, num_new_tokens);
  }

  /// Frees the oldest request that was made, if it holds pages, and forgets it.
  void drop_oldest() { requests_.pop_front(); }

 private:
  static std::vector<CacheGroupSpec> groups() {
    return {{FullAttentionSpec(kPageSize, 8, 128, DType("bfloat16")), std::nullopt}};
  }
  static CacheManagerOptions options() {
    // The cheapest to set up: the digests are made under valgrind too.
    return {.hasher = PageHasher(HashAlgorithm::kXxh3Cbor)};
  }
  TokenId next_token() { return static_cast<TokenId>(random_() % 128'000); }
  Request& make(std::vector<TokenId> tokens) {
    Request& request = requests_.emplace_back("request", std::move(tokens));
    request.page_hashes(kPageSize, manager_.hasher());
    return request;
  }

  CacheManager manager_;
  std::deque<Request> requests_;  // gone before the manager
  std::mt19937 random_{1};
};

/// What was done in all repeats together.
struct Work {
  std::int64_t count;
  const char* unit;
};

/// Steps of 256 requests that decode. One in 16 crosses into a new page.
Work decode_step(int repeats) {
  constexpr std::size_t kNumRequests = 256;
  Loop loop(60'000);
  std::vector<Request*> requests;
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(kNumRequests); ++i) {
    requests.push_back(&loop.make(2000 - kPageSize / 2 + i % kPageSize));
    loop.prefill(*requests.back());
  }
  const std::vector<const Request*> readers(requests.begin(), requests.end());
  const std::vector<std::int32_t> one_each(kNumRequests, 1);
  std::vector<std::int32_t> slots(kNumRequests);
  std::size_t num_pages = 0;
  for (int i = 0; i < repeats; ++i) {
    for (Request* request : requests) loop.say(*request);
    count([&] {
      const StepGrant grant = allocate_step(loop.manager(), requests, {.num_new_tokens = one_each});
      fill_slot_mapping(loop.manager(), readers, one_each, 0, slots);
      commit_step(loop.manager(), requests, one_each);
      num_pages += grant.added[0].ids.size();
    });
  }
  check(num_pages == kNumRequests / kPageSize * static_cast<std::size_t>(repeats),
        "one request in 16 gets a page in each step");
  return {static_cast<std::int64_t>(kNumRequests) * repeats, "request and step"};
}

constexpr std::int32_t kPromptTokens = 8192;
constexpr std::int32_t kPromptPages = kPromptTokens / kPageSize;

/// Prompts of 8192 tokens in a pool whose pages all have content: each page evicts one.
Work prefill(int repeats) {
  Loop loop(100'000);
  PagePool const& pool = loop.manager().pool();
  while (pool.num_evictions() < 2 * kPromptPages) {
    loop.prefill(loop.make(kPromptTokens));
    loop.drop_oldest();
  }
  const std::int64_t num_evictions = pool.num_evictions();
  for (int i = 0; i < repeats; ++i) {
    Request* const requests[] = {&loop.make(kPromptTokens)};
    count([&] {
      std::int32_t num_cached[1];
      match_step(loop.manager(), requests, {}, num_cached);
      loop.prefill(*requests[0]);
    });
    loop.drop_oldest();
  }
  const std::int64_t num_pages = std::int64_t{kPromptPages} * repeats;
  check(pool.num_evictions() - num_evictions == num_pages, "each page evicts one");
  return {num_pages, "page"};
}

/// Looks up 131,072 tokens that are cached, and one more.
Work lookup(int repeats) {
  constexpr std::int32_t kNumTokens = 131'072;
  Loop loop(100'000);
  Request& cached = loop.make(kNumTokens);
  loop.prefill(cached);
  Request& request = loop.make_as(cached);
  loop.say(request);
  for (int i = 0; i < repeats; ++i) {
    count([&] { check(loop.manager().match(request) == kNumTokens, "all is cached"); });
  }
  return {std::int64_t{kNumTokens} / kPageSize * repeats, "page"};
}

/// Forks of a request of 8191 tokens, whose last page has to be copied. The pages of both are
/// counted once.
Work fork(int repeats) {
  Loop loop(100'000);
  Request& parent = loop.make(kPromptTokens - 1);
  loop.prefill(parent);
  std::vector<PageCopies> copies;
  for (int i = 0; i < repeats; ++i) {
    Request& child = loop.make_as(parent);
    count([&] { check(loop.manager().fork(parent, child, copies), "the pool has room"); });
    check(loop.manager().page_ids(child, 0).size() == kPromptPages, "the child has all pages");
    loop.manager().free(child);
  }
  return {std::int64_t{kPromptPages} * repeats, "page"};
}

/// Frees requests of 8192 tokens.
Work free(int repeats) {
  Loop loop(100'000);
  for (int i = 0; i < repeats; ++i) {
    Request& request = loop.make(kPromptTokens);
    loop.prefill(request);
    count([&] { loop.manager().free(request); });
    loop.drop_oldest();
  }
  check(loop.manager().pool().num_free_pages() == 100'000 - 1, "all is free");
  return {std::int64_t{kPromptPages} * repeats, "page"};
}

struct Workload {
  std::string_view name;
  Work (*run)(int repeats);
};

constexpr std::array<Workload, 5> kWorkloads = {{{"decode_step", decode_step},
                                                 {"prefill", prefill},
                                                 {"lookup", lookup},
                                                 {"fork", fork},
                                                 {"free", free}}};

/// Reads a whole number of at least 1.
std::optional<int> parse_repeats(std::string_view text) {
  int repeats = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), repeats);
  if (error != std::errc() || end != text.data() + text.size() || repeats < 1) return {};
  return repeats;
}

const Workload* find_workload(std::string_view name) {
  for (const Workload& workload : kWorkloads) {
    if (workload.name == name) return &workload;
  }
  return nullptr;
}

#ifdef __clang__
constexpr const char* kCompiler = "Clang " __clang_version__;
#else
constexpr const char* kCompiler = "GCC " __VERSION__;
#endif

int run(std::span<const char* const> arguments) {
  if (arguments.size() != 2) {
    std::fputs("usage: hot_loops WORKLOAD REPEATS\n", stderr);
    return 2;
  }
  const Workload* workload = find_workload(arguments[0]);
  if (workload == nullptr) {
    std::string names;
    for (const Workload& known : kWorkloads) names += " " + std::string(known.name);
    std::fprintf(stderr, "[hot_loops] unknown workload %s: must be one of%s\n", arguments[0],
                 names.c_str());
    return 2;
  }
  const std::optional<int> repeats = parse_repeats(arguments[1]);
  if (!repeats) {
    std::fprintf(stderr, "[hot_loops] REPEATS must be an integer of at least 1, got %s\n",
                 arguments[1]);
    return 2;
  }
  try {
    const Work work = workload->run(*repeats);
    std::printf("{\"count\": %lld, \"unit\": \"%s\", \"compiler\": \"%s\"}\n",
                static_cast<long long>(work.count), work.unit, kCompiler);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "[hot_loops] %s: does not hold: %s\n", arguments[0], error.what());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace pagedkv

int main(int argc, char** argv) {
  const std::vector<const char*> arguments(argv + (argc > 0 ? 1 : 0), argv + argc);
  return pagedkv::run(arguments);
}
