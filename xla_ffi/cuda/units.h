#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "host_device.h"

/// Memory is copied in units of 16 bytes, or of what alignment leaves: a thread one unit at a time,
/// neighbouring threads neighbouring units.
namespace pagedkv::cuda {

inline constexpr int64_t kLargestUnit = 16;

/// The largest unit, in bytes, that divides all of `values`: sizes, strides and addresses.
inline int64_t unit_bytes(std::initializer_list<int64_t> values) {
  uint64_t bits = kLargestUnit;
  for (const int64_t value : values) bits |= static_cast<uint64_t>(value);
  return int64_t{1} << std::countr_zero(bits);
}

inline int64_t address(const void* pointer) {
  return static_cast<int64_t>(reinterpret_cast<uintptr_t>(pointer));
}

// One load or store each, of aligned memory that holds objects of any type.
#ifdef __CUDACC__
using Unit16 = uint4;
using Unit8 = uint2;
using Unit4 = unsigned int;
using Unit2 = unsigned short;
using Unit1 = unsigned char;
#else
struct [[gnu::may_alias]] alignas(16) Unit16 {
  uint64_t low, high;
};
using Unit8 __attribute__((may_alias)) = uint64_t;
using Unit4 __attribute__((may_alias)) = uint32_t;
using Unit2 __attribute__((may_alias)) = uint16_t;
using Unit1 __attribute__((may_alias)) = uint8_t;
#endif

template <typename Unit>
PAGEDKV_DEVICE Unit load_unit(const std::byte* from) {
  return *reinterpret_cast<const Unit*>(from);
}

/// Of memory that nobody writes as long as the kernel runs: loads may then pass stores.
template <typename Unit>
PAGEDKV_DEVICE Unit load_constant(const std::byte* from) {
#ifdef __CUDA_ARCH__
  return __ldg(reinterpret_cast<const Unit*>(from));
#else
  return load_unit<Unit>(from);
#endif
}

template <typename Unit>
PAGEDKV_DEVICE void store_unit(std::byte* to, const Unit& unit) {
  *reinterpret_cast<Unit*>(to) = unit;
}

/// Calls `function(Unit{})` with the unit of `num_bytes`.
template <typename Function>
PAGEDKV_DEVICE void with_unit(int64_t num_bytes, const Function& function) {
  switch (num_bytes) {
    case 16:
      return function(Unit16{});
    case 8:
      return function(Unit8{});
    case 4:
      return function(Unit4{});
    case 2:
      return function(Unit2{});
    default:
      return function(Unit1{});
  }
}

/// `a / b`, which takes a GPU a fraction of the time where both fit in 32 bits.
/// Requires `a >= 0 && b > 0`.
PAGEDKV_HOST_DEVICE inline int64_t divide(int64_t a, int64_t b) {
  if ((a | b) >> 32 != 0) return a / b;
  return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
}

/// Sets memory to zeros, all threads of a group together.
template <typename Group>
PAGEDKV_DEVICE void clear(const Group& group, std::byte* to, int64_t num_bytes, int64_t unit) {
  with_unit(unit, [&](auto zero) {
    using Unit = decltype(zero);
    group.for_each(num_bytes / unit, [&](int64_t i) {
      store_unit<Unit>(to + i * static_cast<int64_t>(sizeof(Unit)), Unit{});
    });
  });
}

}  // namespace pagedkv::cuda
