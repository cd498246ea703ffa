#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/// Copies of rows and pages, small ones through the cache and large ones past it.
namespace pagedkv {

inline constexpr size_t kCacheLineBytes = 64;

/// Bytes of a whole call from which on the caches are of no use: what is written would be evicted
/// before anybody reads it, and push out what is needed.
inline constexpr int64_t kStreamingBytes = int64_t{4} << 20;

/// Bytes of a call from which on waking another thread costs less than it gives.
inline constexpr int64_t kParallelBytes = int64_t{2} << 20;

/// Asks for up to `kPrefetchBytes` of a unit. The hardware prefetcher takes over inside a unit;
/// what it cannot know is where the next one starts.
inline void prefetch(const std::byte* unit, size_t num_bytes) {
  constexpr size_t kPrefetchBytes = 1024;
  if (num_bytes > kPrefetchBytes) num_bytes = kPrefetchBytes;
  for (size_t i = 0; i < num_bytes; i += kCacheLineBytes) __builtin_prefetch(unit + i);
}

/// memcpy that does not read the target's lines first, nor keep them in the cache. Needs
/// `end_streaming()` before another thread may read the target.
inline void stream_bytes(std::byte* target, const std::byte* source, size_t num_bytes) {
#ifdef __SSE2__
  if (reinterpret_cast<uintptr_t>(target) % kCacheLineBytes == 0 &&
      num_bytes % kCacheLineBytes == 0) {
    for (size_t i = 0; i < num_bytes; i += kCacheLineBytes) {
      __m128i line[4];
      std::memcpy(line, source + i, kCacheLineBytes);
      for (size_t part = 0; part < 4; ++part) {
        _mm_stream_si128(reinterpret_cast<__m128i*>(target + i) + part, line[part]);
      }
    }
    return;
  }
#endif
  std::memcpy(target, source, num_bytes);
}

inline void end_streaming() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

}  // namespace pagedkv
