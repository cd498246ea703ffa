#pragma once

#include <array>
#include <cstddef>
#include <new>
#include <span>
#include <type_traits>

namespace pagedkv {

/// Up to `kCapacity` values without an allocation, which would cost a small write as much as the
/// write itself.
template <typename T, size_t kCapacity>
class InlineVector {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  /// Requires `size() < kCapacity`.
  void push_back(const T& value) { new (&storage_[size_++]) T(value); }

  size_t size() const { return size_; }
  T* begin() { return reinterpret_cast<T*>(storage_.data()); }
  T* end() { return begin() + size_; }
  const T* begin() const { return reinterpret_cast<const T*>(storage_.data()); }
  const T* end() const { return begin() + size_; }
  T& operator[](size_t i) { return begin()[i]; }
  const T& operator[](size_t i) const { return begin()[i]; }
  const T& front() const { return begin()[0]; }
  const T& back() const { return begin()[size_ - 1]; }
  T& back() { return begin()[size_ - 1]; }
  std::span<const T> span() const { return {begin(), size_}; }

 private:
  struct alignas(T) Slot {
    std::byte bytes[sizeof(T)];
  };
  std::array<Slot, kCapacity> storage_;
  size_t size_ = 0;
};

}  // namespace pagedkv
