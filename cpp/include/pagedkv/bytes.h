#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pagedkv/error.h"

namespace pagedkv {

/// Writes numbers and texts one after the other, for files of ours.
///
/// Integers are LEB128 (seven bits a byte, lowest first, the top bit says that more follow);
/// signed ones are mapped to 0, -1, 1, -2, ... first. Texts and runs of bytes begin with their
/// length.
class ByteWriter {
 public:
  std::span<const std::byte> bytes() const { return bytes_; }
  void clear() { bytes_.clear(); }

  void put_uint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_.push_back(std::byte((value & 0x7f) | 0x80));
    bytes_.push_back(std::byte(value));
  }

  void put_int(std::int64_t value) {
    put_uint((static_cast<std::uint64_t>(value) << 1) ^ static_cast<std::uint64_t>(value >> 63));
  }

  /// Without a length.
  void put_raw(std::span<const std::byte> bytes) {
    const std::size_t begin = bytes_.size();
    bytes_.resize(begin + bytes.size());
    if (!bytes.empty()) std::memcpy(bytes_.data() + begin, bytes.data(), bytes.size());
  }

  void put_bytes(std::span<const std::byte> bytes) {
    put_uint(bytes.size());
    put_raw(bytes);
  }

  void put_text(std::string_view text) { put_bytes(std::as_bytes(std::span(text))); }

  /// How many there are, and each.
  void put_ints(std::span<const std::int32_t> values) {
    put_uint(values.size());
    for (const std::int32_t value : values) put_int(value);
  }

 private:
  std::vector<std::byte> bytes_;
};

/// Reads what a `ByteWriter` wrote, of bytes that may be anything.
///
/// Whatever does not fit throws `std::invalid_argument` "[operation] at byte N: ...". Never reads
/// past the end, nor makes room for more than the bytes can hold.
class ByteReader {
 public:
  /// `offset` is where the first of `bytes` is in its file. The bytes must outlive the reader.
  ByteReader(std::string_view operation, std::span<const std::byte> bytes, std::uint64_t offset = 0)
      : operation_(operation), bytes_(bytes), offset_(offset) {}

  bool is_done() const { return position_ == bytes_.size(); }

  template <typename... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    throw_value_error(operation_, "at byte ", offset_ + position_, ": ", parts...);
  }

  /// Fails unless all has been read.
  void check_done() const {
    if (!is_done()) fail(bytes_.size() - position_, " bytes too many");
  }

  std::uint64_t get_uint();
  std::int64_t get_int();
  bool get_bool();
  std::span<const std::byte> get_raw(std::size_t size);
  std::span<const std::byte> get_bytes() { return get_raw(get_count()); }
  std::string get_text();
  std::vector<std::int32_t> get_ints();

  /// A number of things that take at least so many bytes each.
  std::size_t get_count(std::size_t min_bytes_each = 1);

  /// An integer of another type, which fails unless it is in its range.
  template <typename Integer>
  Integer get_int_as() {
    const std::int64_t value = get_int();
    if (!std::in_range<Integer>(value)) fail(value, " is out of range");
    return static_cast<Integer>(value);
  }

 private:
  std::string_view operation_;
  std::span<const std::byte> bytes_;
  std::uint64_t offset_;
  std::size_t position_ = 0;
};

}  // namespace pagedkv
