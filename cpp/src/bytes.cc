#include "pagedkv/bytes.h"

namespace pagedkv {

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
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::vector<std::int32_t> ByteReader::get_ints() {
  std::vector<std::int32_t> values(get_count());
  for (std::int32_t& value : values) value = get_int_as<std::int32_t>();
  return values;
}

}  // namespace pagedkv
