#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>

namespace pagedkv {

/// Pages of work from which on Python's lock is let go. Giving it back and taking it again costs
/// about as much as hashing one page, and up to the 5 ms of `sys.getswitchinterval()` where other
/// threads are busy in Python: so only for work of 0.1 ms or more.
inline constexpr std::int64_t kMinPagesWithoutGil = 1024;

/// Returns `work()`, done without Python's lock if it is about `num_pages` pages or more.
template <typename Work>
auto without_gil_if_long(std::int64_t num_pages, Work work) {
  if (num_pages < kMinPagesWithoutGil) return work();
  const nanobind::gil_scoped_release release;
  return work();
}

}  // namespace pagedkv
