#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>

namespace pagedkv {

/// `num_bytes` of zeros, aligned to a page of memory. Where the system has large pages of memory
/// (2 MiB), it is asked for those: tables that are read at random need fewer of the CPU's address
/// translations then, and are set up several times faster. Throws `std::bad_alloc`.
void* allocate_zeros(std::size_t num_bytes);

/// Gives back what `allocate_zeros` gave for as many bytes.
void release_zeros(void* memory, std::size_t num_bytes) noexcept;

/// A fixed number of `T`, all bytes of which are zero at first; those never written to may need no
/// memory at all.
template <typename T>
class LargeArray {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  explicit LargeArray(std::size_t size)
      : size_(size), memory_(allocate_zeros(size * sizeof(T)), Release{size * sizeof(T)}) {}

  std::size_t size() const { return size_; }
  T* data() { return static_cast<T*>(memory_.get()); }
  const T* data() const { return static_cast<const T*>(memory_.get()); }

  T& operator[](std::size_t i) { return data()[i]; }
  const T& operator[](std::size_t i) const { return data()[i]; }

  operator std::span<T>() { return {data(), size_}; }

  T* begin() { return data(); }
  T* end() { return data() + size_; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size_; }

 private:
  struct Release {
    std::size_t num_bytes;
    void operator()(void* memory) const noexcept { release_zeros(memory, num_bytes); }
  };

  std::size_t size_;
  std::unique_ptr<void, Release> memory_;
};

}  // namespace pagedkv
