/// Random calls to every FFI handler, good and bad ones. Of each it is asked, under
/// AddressSanitizer and UBSan:
///
/// - no access outside of an array, no exception, and no call that does not come back;
/// - a refusal starts with "[operation]" and leaves every array as it was;
/// - an operand that no result shares its memory with stays as it was;
/// - what is accepted does what a naive loop does;
/// - the handlers for CUDA, run on the host, give the same bytes and the same refusals.
///
///   ffi_fuzz [--calls N] [--seed S] [--only INDEX]
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <sstream>
#include <string>

#include "ffi_breaks.h"
#include "ffi_cases.h"
#include "ffi_cuda.h"
#include "ffi_frame.h"
#include "ffi_known.h"
#include "ffi_model.h"
#include "fuzz_random.h"

// A refused allocation is an answer like others, where the code asks for one. What a sanitizer
// finds ends in SIGABRT, whichever of them it is.
extern "C" const char* __asan_default_options() {
  return "allocator_may_return_null=1:abort_on_error=1:max_allocation_size_mb=4096";
}
extern "C" const char* __ubsan_default_options() { return "print_stacktrace=1:abort_on_error=1"; }

namespace pagedkv::fuzz {
namespace {

constexpr unsigned kSecondsPerCall = 120;

struct Options {
  uint64_t calls = 20000;
  uint64_t seed = 0;
  uint64_t first = 0;
};

// The call in hand, for whoever reports a crash.
struct {
  const Call* call = nullptr;
  uint64_t seed = 0;
  uint64_t index = 0;
} current;

void print_current() {
  if (current.call == nullptr) return;
  std::cerr << "in call " << current.index << " of seed " << current.seed << " (--seed "
            << current.seed << " --only " << current.index << "):\n"
            << describe(*current.call) << std::flush;
}

[[noreturn]] void fail(const std::string& what) {
  std::cerr << "ffi_fuzz: " << what << '\n';
  print_current();
  std::exit(1);
}

// Not what a signal handler should do, but the process is lost already.
[[noreturn]] void give_up(int signal) {
  std::cerr << (signal == SIGALRM ? "ffi_fuzz: a call does not come back, " : "ffi_fuzz: ");
  print_current();
  _exit(1);
}

// A refusal without what was seen: its first words, but for numbers, shapes and names of dtypes.
std::string kind_of(const std::string& message) {
  constexpr size_t kWords = 9;
  std::istringstream words(message);
  std::string kind, word;
  bool in_shape = false;
  for (size_t i = 0; i < kWords && words >> word && word != "got"; i += in_shape ? 0 : 1) {
    const bool is_name = i == 0 && word.front() == '[';
    const bool is_seen =
        !is_name && std::string_view("[-0123456789").find(word.front()) != std::string_view::npos;
    const bool is_dtype = std::isupper(static_cast<unsigned char>(word.front())) != 0 && i > 1;
    if (!in_shape) kind += is_seen || is_dtype ? "# " : word + ' ';
    in_shape = !is_name && (in_shape || word.front() == '[') && word.find(']') == std::string::npos;
  }
  return kind;
}

struct Counts {
  uint64_t accepted = 0;
  uint64_t compared = 0;  // with the model
  uint64_t compared_with_cuda = 0;
  uint64_t with_bad_ids = 0;
  std::map<std::string, uint64_t> by_target;  // accepted
  std::map<std::string, uint64_t> refusals;
};

void check_unchanged(const Call& call, const Outcome& outcome) {
  for (size_t i = 0; i < call.operands.size(); ++i) {
    const bool is_shared = std::ranges::find(call.aliases, i) != call.aliases.end();
    if ((outcome.ok() && is_shared) || outcome.operands[i] == call.operands[i].contents) continue;
    fail("operand " + std::to_string(i) + " has changed");
  }
  if (outcome.ok()) return;
  for (size_t i = 0; i < call.results.size(); ++i) {
    const size_t alias = call.aliases[i];
    const Tensor& before = alias == kNoAlias ? call.results[i] : call.operands[alias];
    if (outcome.results[i] == before.contents) continue;
    fail("result " + std::to_string(i) + " has changed in a refused call: " + outcome.message);
  }
}

void check_refusal(const Call& call, const Outcome& outcome, bool xla_may_refuse) {
  std::string prefix = "[";
  prefix.append(call.operation).append("] ");
  const bool is_ours =
      outcome.message.starts_with(prefix) && outcome.code != XLA_FFI_Error_Code_UNKNOWN;
  const bool is_xlas = outcome.message.find("Wrong number of") != std::string::npos ||
                       outcome.message.find("Failed to decode") != std::string::npos;
  if (!is_ours && !(xla_may_refuse && is_xlas)) fail("refused with: " + outcome.message);
}

bool has_dropped(const Call& call, const Outcome& outcome) {
  for (size_t i = 0; i < call.results.size(); ++i) {
    if (call.results[i].dtype != XLA_FFI_DataType_S32 || call.aliases[i] != kNoAlias) continue;
    const bool is_zero = std::ranges::all_of(outcome.results[i],
                                             [](std::byte byte) { return byte == std::byte{0}; });
    if (!is_zero) return true;
  }
  return false;
}

// Runs a call and checks all that holds for any.
Outcome check(const Call& call, bool xla_may_refuse, Counts& counts) {
  current.call = &call;
  alarm(kSecondsPerCall);
  Outcome outcome = run(call);
  if (!outcome.ok()) {
    check_refusal(call, outcome, xla_may_refuse);
    ++counts.refusals[kind_of(outcome.message)];
  }
  check_unchanged(call, outcome);
  if (outcome.ok()) {
    ++counts.accepted;
    ++counts.by_target[std::string(call.target)];
    counts.with_bad_ids += has_dropped(call, outcome);
    counts.compared += compare_with_model(call, outcome, fail);
  }
  counts.compared_with_cuda += compare_with_cuda(call, outcome, fail);
  return outcome;
}

void make_one_call(uint64_t seed, uint64_t index, Counts& counts) {
  Random random(seed * 0x9e3779b97f4a7c15 + index);
  random = Random(random.next());
  current = {nullptr, seed, index};
  Case made = make_case(random);
  bool xla_may_refuse = false, is_broken = false;
  if (random.one_in(3)) {
    const Case whole = made;
    for (int64_t breaks = random.between(1, 3); breaks > 0; --breaks) {
      xla_may_refuse |= break_call(made.call, random);
    }
    is_broken = settle(made.call, random);
    if (!is_broken) made = whole;
    // What a handler remembers of a good call must not let a bad one in.
    if (is_broken && random.one_in(2)) check(whole.call, false, counts);
  }
  const Outcome outcome = check(made.call, xla_may_refuse && is_broken, counts);
  if (!is_broken && made.expectation == Expectation::kSuccess && !outcome.ok()) {
    fail("refused a good call: " + outcome.message);
  }
  if (!is_broken && made.expectation == Expectation::kOutOfRange &&
      outcome.code != XLA_FFI_Error_Code_OUT_OF_RANGE) {
    fail("did not refuse an id out of range: " + outcome.message);
  }
  current.call = nullptr;
}

void print(const Counts& counts, uint64_t calls) {
  std::printf(
      "%llu calls, %llu of them bad: %llu accepted, %llu of them with ids out of range; "
      "%llu compared with a loop, %llu with CUDA's on the host\n",
      static_cast<unsigned long long>(calls),
      static_cast<unsigned long long>(calls - counts.accepted + counts.with_bad_ids),
      static_cast<unsigned long long>(counts.accepted),
      static_cast<unsigned long long>(counts.with_bad_ids),
      static_cast<unsigned long long>(counts.compared),
      static_cast<unsigned long long>(counts.compared_with_cuda));
  std::printf("accepted:\n");
  for (const auto& [target, count] : counts.by_target) {
    std::printf("%9llu  %s\n", static_cast<unsigned long long>(count), target.c_str());
  }
  std::printf("refused:\n");
  for (const auto& [kind, count] : counts.refusals) {
    std::printf("%9llu  %s\n", static_cast<unsigned long long>(count), kind.c_str());
  }
}

int fuzz(const Options& options) {
  std::signal(SIGALRM, give_up);
  std::signal(SIGABRT, give_up);
  Counts known;
  for (const Call& call : known_calls()) check(call, false, known);
  Counts counts;
  for (uint64_t i = 0; i < options.calls; ++i) {
    make_one_call(options.seed, options.first + i, counts);
  }
  alarm(0);
  std::printf("seed %llu: ", static_cast<unsigned long long>(options.seed));
  print(counts, options.calls);
  // Else the calls do not test what they are there for.
  const bool says_enough = options.calls < 1000 || counts.with_bad_ids * 3 >= options.calls;
  if (!says_enough) std::printf("ffi_fuzz: too few calls get through the checks with bad ids\n");
  return says_enough ? 0 : 1;
}

}  // namespace
}  // namespace pagedkv::fuzz

int main(int argc, char** argv) {
  pagedkv::fuzz::Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const uint64_t value = std::strtoull(argv[i + 1], nullptr, 10);
    if (name == "--calls") options.calls = value;
    if (name == "--seed") options.seed = value;
    if (name == "--only") options.first = value, options.calls = 1;
  }
  return pagedkv::fuzz::fuzz(options);
}
