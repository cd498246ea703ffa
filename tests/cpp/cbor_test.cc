#include "pagedkv/hash/cbor.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "hex.h"

namespace pagedkv {
namespace {

// What `write(writer)` writes, in hex.
template <typename Write>
std::string written(Write write) {
  std::vector<std::byte> buffer(512);
  CborWriter writer(buffer);
  write(writer);
  return to_hex(std::span(buffer).first(writer.size()));
}

std::string int_hex(std::int64_t value) {
  return written([&](CborWriter& writer) { writer.write_int(value); });
}

std::string int32_hex(std::int32_t value) {
  return written([&](CborWriter& writer) { writer.write_int(value); });
}

std::string uint_hex(std::uint64_t value) {
  return written([&](CborWriter& writer) { writer.write_uint(value); });
}

std::string text_hex(std::string_view text) {
  return written([&](CborWriter& writer) { writer.write_text(text); });
}

// RFC 8949, Appendix A, and both sides of every size of a head.
const std::vector<std::pair<std::uint64_t, std::string>> kUnsigned = {
    {0, "00"},
    {1, "01"},
    {10, "0a"},
    {23, "17"},
    {24, "1818"},
    {25, "1819"},
    {100, "1864"},
    {255, "18ff"},
    {256, "190100"},
    {1000, "1903e8"},
    {65535, "19ffff"},
    {65536, "1a00010000"},
    {1000000, "1a000f4240"},
    {0xFFFFFFFF, "1affffffff"},
    {0x100000000, "1b0000000100000000"},
    {1000000000000, "1b000000e8d4a51000"},
    {18446744073709551615U, "1bffffffffffffffff"},
};

const std::vector<std::pair<std::int64_t, std::string>> kNegative = {
    {-1, "20"},
    {-10, "29"},
    {-24, "37"},
    {-25, "3818"},
    {-100, "3863"},
    {-256, "38ff"},
    {-257, "390100"},
    {-1000, "3903e7"},
    {-65536, "39ffff"},
    {-65537, "3a00010000"},
    {-0x80000000LL, "3a7fffffff"},
    {-0x100000000LL, "3affffffff"},
    {-0x100000001LL, "3b0000000100000000"},
    {std::numeric_limits<std::int64_t>::min(), "3b7fffffffffffffff"},
};

TEST(CborWriterTest, WritesUnsignedIntegers) {
  for (const auto& [value, hex] : kUnsigned) EXPECT_EQ(uint_hex(value), hex) << value;
}

TEST(CborWriterTest, WritesSignedIntegers) {
  for (const auto& [value, hex] : kNegative) EXPECT_EQ(int_hex(value), hex) << value;
  for (const auto& [value, hex] : kUnsigned) {
    if (!std::in_range<std::int64_t>(value)) continue;
    EXPECT_EQ(int_hex(static_cast<std::int64_t>(value)), hex) << value;
  }
}

TEST(CborWriterTest, WritesInt32AsInt64) {
  for (const auto& [value, hex] : kNegative) {
    if (!std::in_range<std::int32_t>(value)) continue;
    EXPECT_EQ(int32_hex(static_cast<std::int32_t>(value)), hex) << value;
  }
  for (const auto& [value, hex] : kUnsigned) {
    if (!std::in_range<std::int32_t>(value)) continue;
    EXPECT_EQ(int32_hex(static_cast<std::int32_t>(value)), hex) << value;
  }
  EXPECT_EQ(int32_hex(std::numeric_limits<std::int32_t>::max()), "1a7fffffff");
}

TEST(CborWriterTest, WritesByteStrings) {
  EXPECT_EQ(written([](CborWriter& writer) { writer.write_bytes({}); }), "40");
  const std::array<std::byte, 4> bytes = {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
  EXPECT_EQ(written([&](CborWriter& writer) { writer.write_bytes(bytes); }), "4401020304");
}

TEST(CborWriterTest, WritesTextStrings) {
  EXPECT_EQ(text_hex(""), "60");
  EXPECT_EQ(text_hex("a"), "6161");
  EXPECT_EQ(text_hex("IETF"), "6449455446");
  EXPECT_EQ(text_hex("\"\\"), "62225c");
  EXPECT_EQ(text_hex("\u00fc"), "62c3bc");
  EXPECT_EQ(text_hex("\u6c34"), "63e6b0b4");
  EXPECT_EQ(text_hex(std::string(23, 'x')).substr(0, 4), "7778");
  EXPECT_EQ(text_hex(std::string(24, 'x')).substr(0, 6), "781878");
  EXPECT_EQ(text_hex(std::string(256, 'x')).substr(0, 8), "79010078");
}

TEST(CborWriterTest, WritesNestedArrays) {
  EXPECT_EQ(written([](CborWriter& writer) { writer.write_array_head(0); }), "80");
  const auto nested = written([](CborWriter& writer) {  // [1, [2, 3], [4, 5]]
    writer.write_array_head(3);
    writer.write_int(1);
    writer.write_array_head(2);
    writer.write_int(2);
    writer.write_int(3);
    writer.write_ints(std::array{4, 5});
  });
  EXPECT_EQ(nested, "8301820203820405");
}

TEST(CborWriterTest, WritesLongArrays) {
  std::vector<std::int32_t> values;
  std::string hex = "9819";
  for (std::int32_t value = 1; value <= 25; ++value) {
    values.push_back(value);
    hex += int32_hex(value);
  }
  EXPECT_EQ(written([&](CborWriter& writer) { writer.write_ints(values); }), hex);
}

TEST(CborWriterTest, WritesNull) {
  EXPECT_EQ(written([](CborWriter& writer) { writer.write_null(); }), "f6");
}

TEST(CborWriterTest, WritesArraysOfEveryMixOfSizes) {
  const std::array<std::int32_t, 8> edges = {0, 23, 24, 255, 256, 65535, 65536, -1};
  for (const std::int32_t odd_one : edges) {
    for (std::size_t at = 0; at < 16; ++at) {
      std::vector<std::int32_t> values(16, 1000);
      values[at] = odd_one;
      std::string hex = "90";
      for (const std::int32_t value : values) hex += int32_hex(value);
      ASSERT_EQ(written([&](CborWriter& writer) { writer.write_ints(values); }), hex)
          << odd_one << " at " << at;
    }
  }
}

TEST(CborWriterTest, NeedsNoMoreThanTheDocumentedSlack) {
  const std::vector<std::int32_t> values(16, 1);
  std::vector<std::byte> buffer(1 + values.size() + CborWriter::kSlackBytes + 1, std::byte{0xCC});
  CborWriter writer{std::span(buffer).first(buffer.size() - 1)};
  writer.write_ints(values);
  EXPECT_EQ(writer.size(), 1 + values.size());
  EXPECT_EQ(buffer.back(), std::byte{0xCC});
}

}  // namespace
}  // namespace pagedkv
