// The bound of attention over a long context: reading as many bytes, and nothing else. One thread.
#include <cstddef>
#include <cstdint>
#include <cstring>

// The sum of `num_bytes / 8` words, four lines at a time, so that the loop becomes vector code and
// no addition waits for the one before.
extern "C" uint64_t BenchReadBytes(const std::byte* from, size_t num_bytes) {
  constexpr size_t kWords = 32;
  uint64_t sums[kWords] = {};
  for (size_t at = 0; at + kWords * 8 <= num_bytes; at += kWords * 8) {
    uint64_t words[kWords];
    std::memcpy(words, from + at, sizeof(words));
    for (size_t i = 0; i < kWords; ++i) sums[i] += words[i];
  }
  uint64_t total = 0;
  for (const uint64_t sum : sums) total += sum;
  return total;
}
