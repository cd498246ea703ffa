#include "pagedkv/pool/large_array.h"

#include <cstdint>
#include <cstring>
#include <limits>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace pagedkv {
namespace {

constexpr std::size_t kAlignment = 4096;

#if defined(__linux__)

constexpr std::size_t kLargePageBytes = std::size_t{2} << 20;

bool uses_large_pages(std::size_t num_bytes) { return num_bytes >= kLargePageBytes; }

std::size_t rounded_up(std::size_t num_bytes) {
  if (num_bytes > std::numeric_limits<std::size_t>::max() / 2) throw std::bad_alloc();
  return (num_bytes + kLargePageBytes - 1) / kLargePageBytes * kLargePageBytes;
}

// Address space is asked for beyond what is needed, and given back around the aligned part.
void* map_large_pages(std::size_t num_bytes) {
  const std::size_t wanted = rounded_up(num_bytes);
  const std::size_t mapped = wanted + kLargePageBytes;
  void* const memory =
      mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  auto* const begin = static_cast<std::byte*>(memory);
  const std::size_t before =
      (kLargePageBytes - reinterpret_cast<std::uintptr_t>(begin) % kLargePageBytes) %
      kLargePageBytes;
  if (before > 0) munmap(begin, before);
  if (before < kLargePageBytes) munmap(begin + before + wanted, kLargePageBytes - before);
  madvise(begin + before, wanted, MADV_HUGEPAGE);  // a wish: fails where there are none
  return begin + before;
}

#endif

}  // namespace

void* allocate_zeros(std::size_t num_bytes) {
#if defined(__linux__)
  if (uses_large_pages(num_bytes)) return map_large_pages(num_bytes);
#endif
  void* const memory = ::operator new(num_bytes, std::align_val_t{kAlignment});
  std::memset(memory, 0, num_bytes);
  return memory;
}

void release_zeros(void* memory, std::size_t num_bytes) noexcept {
#if defined(__linux__)
  if (uses_large_pages(num_bytes)) {
    munmap(memory, (num_bytes + kLargePageBytes - 1) / kLargePageBytes * kLargePageBytes);
    return;
  }
#endif
  ::operator delete(memory, std::align_val_t{kAlignment});
}

}  // namespace pagedkv
