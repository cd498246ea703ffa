#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "checks.h"

/// Operands and results of handlers that take as many as a layout has, or write pools in place.
namespace pagedkv {

/// XLA hands in the same memory for an aliased operand and result. Where it does not, the rest of
/// the pool, `num_bytes` of it, must come along.
inline void carry_over(const void* before, void* after, int64_t num_bytes) {
  if (before == after || num_bytes == 0) return;
  std::memcpy(after, before, static_cast<size_t>(num_bytes));
}
inline void carry_over(const ffi::AnyBuffer& before, const ffi::AnyBuffer& after,
                       int64_t num_bytes) {
  carry_over(before.untyped_data(), after.untyped_data(), num_bytes);
}

/// Appends all of `operands` to `buffers`. Fails unless there are `num_wanted`.
template <typename Buffers>
ffi::Error read_operands(std::string_view operation, const ffi::RemainingArgs& operands,
                         size_t num_wanted, Buffers& buffers) {
  if (operands.size() != num_wanted) {
    return invalid_argument(operation, "must have ", num_wanted, " pools and rows, got ",
                            operands.size());
  }
  for (size_t i = 0; i < num_wanted; ++i) {
    const auto buffer = operands.get<ffi::AnyBuffer>(i);
    if (!buffer) return buffer.error();
    buffers.push_back(*buffer);
  }
  return ffi::Error::Success();
}

/// Appends all of `results` to `buffers`. Fails unless there are `num_wanted`.
template <typename Buffers>
ffi::Error read_results(std::string_view operation, const ffi::RemainingRets& results,
                        size_t num_wanted, Buffers& buffers) {
  if (results.size() != num_wanted) {
    return invalid_argument(operation, "must have ", num_wanted, " pools as results, got ",
                            results.size());
  }
  for (size_t i = 0; i < num_wanted; ++i) {
    auto buffer = results.get<ffi::AnyBuffer>(i);
    if (!buffer) return buffer.error();
    buffers.push_back(**buffer);
  }
  return ffi::Error::Success();
}

}  // namespace pagedkv
