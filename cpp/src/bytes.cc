#include "pagedkv/bytes.h"

namespace pagedkv {
namespace {

// As Unicode defines it: no surrogates, nothing past U+10FFFF, nothing longer than it need be.
bool is_utf8(std::span<const std::byte> bytes) {
  for (std::size_t i = 0; i < bytes.size();) {
    const auto first = std::to_integer<std::uint32_t>(bytes[i++]);
    if (first < 0x80) continue;
    const int num_more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    if (first < 0xc2 || first > 0xf4 || bytes.size() - i < static_cast<std::size_t>(num_more)) {
      return false;
    }
    std::uint32_t code = first & (0x3fU >> num_more);
    for (int left = num_more; left > 0; --left) {
      const auto next = std::to_integer<std::uint32_t>(bytes[i++]);
      if ((next & 0xc0) != 0x80) return false;
      code = (code << 6) | (next & 0x3f);
    }
    const bool is_longer = (num_more == 2 && code < 0x800) || (num_more == 3 && code < 0x10000);
    if (is_longer || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
  }
  return true;
}

}  // namespace

std::uint64_t ByteReader::get_uint() {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    if (is_done()) fail("a number is cut off");
    const auto byte = std::to_integer<std::uint64_t>(bytes_[position_++]);
    if (shift == 63 && byte > 1) break;
    value |= (byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  fail("a number has more than 64 bits");
}

std::int64_t ByteReader::get_int() {
  const std::uint64_t value = get_uint();
  return static_cast<std::int64_t>(value >> 1) ^ -static_cast<std::int64_t>(value & 1);
}

bool ByteReader::get_bool() {
  const std::uint64_t value = get_uint();
  if (value > 1) fail(value, " is neither 0 nor 1");
  return value == 1;
}

std::size_t ByteReader::get_count(std::size_t min_bytes_each) {
  const std::uint64_t count = get_uint();
  const std::size_t left = bytes_.size() - position_;
  if (count > left / min_bytes_each) fail(count, " items cannot be in ", left, " bytes");
  return static_cast<std::size_t>(count);
}

std::span<const std::byte> ByteReader::get_raw(std::size_t size) {
  if (size > bytes_.size() - position_) fail("needs ", size, " bytes more");
  const auto bytes = bytes_.subspan(position_, size);
  position_ += size;
  return bytes;
}

std::string ByteReader::get_text() {
  const auto bytes = get_bytes();
  if (!is_utf8(bytes)) fail("a text is not UTF-8");
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::vector<std::int32_t> ByteReader::get_ints() {
  std::vector<std::int32_t> values(get_count());
  for (std::int32_t& value : values) value = get_int_as<std::int32_t>();
  return values;
}

}  // namespace pagedkv
