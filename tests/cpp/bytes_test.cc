#include "pagedkv/bytes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "random.h"

namespace pagedkv {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(BytesTest, ReadsWhatWasWritten) {
  ByteWriter writer;
  std::vector<std::int64_t> values = {0,
                                      -1,
                                      1,
                                      63,
                                      64,
                                      -64,
                                      -65,
                                      std::numeric_limits<std::int64_t>::max(),
                                      std::numeric_limits<std::int64_t>::min()};
  Random random(1);
  for (int i = 0; i < 1000; ++i) {
    values.push_back(static_cast<std::int64_t>(random.below(1u << 31)) << random.below(33));
  }
  for (const std::int64_t value : values) {
    writer.put_int(value);
    writer.put_uint(static_cast<std::uint64_t>(value));
  }
  writer.put_text("a text");
  writer.put_text("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xef\xbf\xbf");
  writer.put_ints(std::vector<std::int32_t>{5, -6});
  ByteReader reader("test", writer.bytes());
  for (const std::int64_t value : values) {
    EXPECT_EQ(reader.get_int(), value);
    EXPECT_EQ(reader.get_uint(), static_cast<std::uint64_t>(value));
  }
  EXPECT_EQ(reader.get_text(), "a text");
  EXPECT_EQ(reader.get_text(), "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xef\xbf\xbf");
  EXPECT_THAT(reader.get_ints(), testing::ElementsAre(5, -6));
  EXPECT_NO_THROW(reader.check_done());
}

TEST(BytesTest, SmallNumbersTakeAByte) {
  ByteWriter writer;
  writer.put_int(-64);
  writer.put_uint(127);
  EXPECT_EQ(writer.bytes().size(), 2);
}

std::vector<std::byte> bytes_of(std::vector<int> values) {
  std::vector<std::byte> bytes;
  for (const int value : values) bytes.push_back(std::byte(value));
  return bytes;
}

template <typename Get>
void expect_failure(std::vector<int> values, Get get, const char* text) {
  const auto bytes = bytes_of(std::move(values));
  ByteReader reader("test", bytes, 100);
  EXPECT_THAT([&] { get(reader); }, ThrowsMessage<std::invalid_argument>(HasSubstr(text)));
}

TEST(BytesTest, RefusesWhatDoesNotFit) {
  const auto uint = [](ByteReader& reader) { reader.get_uint(); };
  expect_failure({}, uint, "[test] at byte 100: a number is cut off");
  expect_failure({0x80, 0x80}, uint, "[test] at byte 102: a number is cut off");
  expect_failure({255, 255, 255, 255, 255, 255, 255, 255, 255, 2}, uint, "more than 64 bits");
  expect_failure({2}, [](ByteReader& reader) { reader.get_bool(); }, "2 is neither 0 nor 1");
  expect_failure({4, 1}, [](ByteReader& reader) { reader.get_text(); }, "4 items");
  expect_failure(
      {255, 255, 255, 255, 15}, [](ByteReader& reader) { reader.get_ints(); },
      "4294967295 items cannot be in 0 bytes");
  const auto text = [](ByteReader& reader) { reader.get_text(); };
  for (const std::vector<int>& bytes : std::vector<std::vector<int>>{{1, 0x80},
                                                                     {2, 0xc0, 0x80},
                                                                     {1, 0xc3},
                                                                     {2, 0xc3, 'a'},
                                                                     {3, 0xe0, 0x80, 0x80},
                                                                     {3, 0xed, 0xa0, 0x80},
                                                                     {4, 0xf0, 0x80, 0x80, 0x80},
                                                                     {4, 0xf4, 0x90, 0x80, 0x80},
                                                                     {1, 0xff}}) {
    expect_failure(bytes, text, "a text is not UTF-8");
  }
  expect_failure({2, 9, 9}, [](ByteReader& reader) { reader.get_count(2); }, "2 items");
  expect_failure(
      {255, 255, 255, 255, 31}, [](ByteReader& reader) { reader.get_int_as<std::int32_t>(); },
      "out of range");
  expect_failure({1}, [](ByteReader& reader) { reader.check_done(); }, "1 bytes too many");
}

}  // namespace
}  // namespace pagedkv
