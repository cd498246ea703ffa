#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "pagedkv/hash/big_endian.h"

namespace pagedkv {

/// Writes canonical CBOR (RFC 8949, section 4.2.1): every value has one encoding, the shortest.
///
/// Only what page hashes need: integers, byte and text strings, array heads, null. Writes into
/// memory of the caller, which must have room for the values and `kSlackBytes` more, since short
/// heads are stored as eight bytes whatever their size. Nothing allocates, and integers of mixed
/// sizes cost no branch.
class CborWriter {
 public:
  static constexpr std::size_t kMaxHeadBytes = 9;
  static constexpr std::size_t kMaxInt32Bytes = 5;
  static constexpr std::size_t kSlackBytes = 7;

  explicit CborWriter(std::span<std::byte> buffer)
      : begin_(buffer.data()), next_(begin_), end_(begin_ + buffer.size()) {}

  /// Number of bytes written, from the front of the buffer on.
  std::size_t size() const { return static_cast<std::size_t>(next_ - begin_); }

  void write_int(std::int32_t value) {
    assert(room() >= sizeof(std::uint64_t));
    next_ = put_int(next_, value);
  }

  void write_int(std::int64_t value) {
    const auto sign = static_cast<std::uint64_t>(value >> 63);
    write_head(sign & kNegative, static_cast<std::uint64_t>(value) ^ sign);
  }

  void write_uint(std::uint64_t value) { write_head(kUnsigned, value); }

  void write_bytes(std::span<const std::byte> bytes) {
    write_head(kByteString, bytes.size());
    write_encoded(bytes);
  }

  /// `text` must be UTF-8, which is not checked.
  void write_text(std::string_view text) {
    write_head(kTextString, text.size());
    write_encoded(std::as_bytes(std::span(text)));
  }

  /// Opens an array: the next `num_items` values are its items.
  void write_array_head(std::size_t num_items) { write_head(kArray, num_items); }

  /// An array of integers.
  void write_ints(std::span<const std::int32_t> values) {
    write_array_head(values.size());
    std::byte* next = next_;  // a local, since the bytes written could alias a member
    for (const std::int32_t value : values) {
      assert(end_ - next >= std::ptrdiff_t{sizeof(std::uint64_t)});
      next = put_int(next, value);
    }
    next_ = next;
  }

  void write_null() { write_byte(kNull); }

  /// Copies a value that is CBOR already.
  void write_encoded(std::span<const std::byte> encoded) {
    assert(room() >= encoded.size());
    if (!encoded.empty()) std::memcpy(next_, encoded.data(), encoded.size());
    next_ += encoded.size();
  }

 private:
  // Major types, in the upper three bits of the first byte.
  static constexpr std::uint8_t kUnsigned = 0x00;
  static constexpr std::uint8_t kNegative = 0x20;
  static constexpr std::uint8_t kByteString = 0x40;
  static constexpr std::uint8_t kTextString = 0x60;
  static constexpr std::uint8_t kArray = 0x80;
  static constexpr std::uint8_t kNull = 0xF6;
  static constexpr std::uint8_t kEightBytesFollow = 27;

  // How a value below 2^32 is laid out in the eight bytes of a short head, first byte on top.
  struct Layout {
    std::uint64_t first_byte;
    std::uint8_t value_shift;
    std::uint8_t num_bytes;
  };
  static constexpr std::array<Layout, 4> kLayouts = {{
      {0, 56, 1},                        // below 24: in the first byte itself
      {std::uint64_t{24} << 56, 48, 2},  // one byte follows
      {std::uint64_t{25} << 56, 40, 3},  // two bytes follow
      {std::uint64_t{26} << 56, 24, 5},  // four bytes follow
  }};

  std::size_t room() const { return static_cast<std::size_t>(end_ - next_); }

  void write_byte(std::uint8_t value) {
    assert(room() >= 1);
    *next_++ = std::byte{value};
  }

  // Each `put` returns the end of what it wrote.
  static std::byte* put_short_head(std::byte* out, std::uint64_t major, std::uint32_t value) {
    const unsigned size_class = (value >= 24U) + (value >= 0x100U) + (value >= 0x10000U);
    const Layout& layout = kLayouts[size_class];
    const std::uint64_t head = major << 56 | layout.first_byte;
    store_big_endian(out, head | std::uint64_t{value} << layout.value_shift);
    return out + layout.num_bytes;
  }

  static std::byte* put_int(std::byte* out, std::int32_t value) {
    const auto sign = static_cast<std::uint32_t>(value >> 31);
    return put_short_head(out, sign & kNegative, static_cast<std::uint32_t>(value) ^ sign);
  }

  void write_head(std::uint64_t major, std::uint64_t value) {
    if (value <= 0xFFFFFFFFU) {
      assert(room() >= sizeof(std::uint64_t));
      next_ = put_short_head(next_, major, static_cast<std::uint32_t>(value));
      return;
    }
    assert(room() >= kMaxHeadBytes);
    *next_ = std::byte(major | kEightBytesFollow);
    store_big_endian(next_ + 1, value);
    next_ += kMaxHeadBytes;
  }

  std::byte* begin_;
  std::byte* next_;
  std::byte* end_;
};

}  // namespace pagedkv
