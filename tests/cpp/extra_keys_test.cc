#include "pagedkv/hash/extra_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "hex.h"

namespace pagedkv {
namespace {

using testing::ElementsAre;

std::string encoded(const ExtraKeys& keys, std::size_t page, std::int32_t page_size = 4) {
  std::vector<std::byte> bytes = {std::byte{1}};  // to be replaced
  keys.encode_page(page, page_size, bytes);
  return to_hex(bytes);
}

ExtraKeys items(std::vector<MultimodalItem> mm_items) {
  return ExtraKeys(std::nullopt, std::move(mm_items), std::nullopt);
}

constexpr auto kCat2 =
    "81"
    "83626d6d6363617402";  // (("mm", "cat", 2),)

TEST(ExtraKeysTest, AreNothingByDefault) {
  EXPECT_TRUE(ExtraKeys().empty());
  EXPECT_EQ(encoded(ExtraKeys(), 0), "");
}

TEST(ExtraKeysTest, EncodeTheTupleOfVllmInItsOrder) {
  // cbor2.dumps((("lora", "m", "/p"), ("mm", "cat", 2), ("cache_salt", "s")), canonical=True)
  const ExtraKeys keys(LoraKey{"m", "/p"}, {{"cat", 2, 3}}, "s");
  EXPECT_FALSE(keys.empty());
  EXPECT_EQ(encoded(keys, 0),
            "83"
            "83646c6f7261616d622f70"
            "83626d6d6363617402"
            "826a63616368655f73616c746173");
  EXPECT_EQ(encoded(keys, 1),
            "82"
            "83646c6f7261616d622f70"
            "83626d6d6363617421")
      << "offset -2";
  EXPECT_EQ(encoded(keys, 2),
            "81"
            "83646c6f7261616d622f70");
}

TEST(ExtraKeysTest, SaltOnlyTheFirstPage) {
  const ExtraKeys keys(std::nullopt, {}, "s");
  EXPECT_EQ(encoded(keys, 0),
            "81"
            "826a63616368655f73616c746173");
  EXPECT_EQ(encoded(keys, 1), "");
}

TEST(ExtraKeysTest, NameTheItemsThatReachAPage) {
  const ExtraKeys keys = items({{"cat", 6, 2}});
  EXPECT_EQ(encoded(keys, 0), "");
  EXPECT_EQ(encoded(keys, 1), kCat2);
  EXPECT_EQ(encoded(keys, 2), "") << "the item ends where the page begins";
}

TEST(ExtraKeysTest, SortItems) {
  const ExtraKeys keys = items({{"b", 3, 1}, {"a", 0, 1}});
  EXPECT_THAT(keys.mm_items(), ElementsAre(MultimodalItem{"a", 0, 1}, MultimodalItem{"b", 3, 1}));
  EXPECT_EQ(encoded(keys, 0),
            "82"
            "83626d6d616100"
            "83626d6d616203");
}

TEST(ExtraKeysTest, FindALongItemBehindAShortOneThatEndedBefore) {
  const ExtraKeys keys = items({{"long", 0, 20}, {"short", 1, 1}});
  EXPECT_EQ(encoded(keys, 2),
            "81"
            "83626d6d646c6f6e6727");
}

TEST(ExtraKeysTest, HashTheEmbeddingsOfEachPage) {
  const auto rows = bytes_of("abcdefgh");  // four rows of two bytes
  const PromptEmbeds embeds(rows, 4, 3);
  EXPECT_EQ(embeds.digest(0), sha256(bytes_of("abcdef")));
  EXPECT_EQ(embeds.digest(1), sha256(bytes_of("gh")));
  EXPECT_EQ(embeds.digest(2), sha256({}));
  EXPECT_EQ(embeds.digest(1000), sha256({}));
  const ExtraKeys keys(std::nullopt, {}, std::nullopt, embeds);
  EXPECT_EQ(encoded(keys, 1, 3),
            "81826d70726f6d70745f656d62656473"
            "5820" +
                to_hex(sha256(bytes_of("gh"))));
  EXPECT_THROW(encoded(keys, 0, 4), std::invalid_argument);
}

TEST(ExtraKeysTest, RefuseEmbeddingsWithoutShape) {
  EXPECT_THROW(PromptEmbeds(bytes_of("abc"), 2, 4), std::invalid_argument);
  EXPECT_THROW(PromptEmbeds(bytes_of("abc"), 0, 4), std::invalid_argument);
  EXPECT_THROW(PromptEmbeds({}, 2, 4), std::invalid_argument);
  EXPECT_THROW(PromptEmbeds(bytes_of("ab"), 2, 0), std::invalid_argument);
}

TEST(ExtraKeysTest, RefuseKeysThatMeanNothing) {
  EXPECT_THROW(ExtraKeys(LoraKey{"", "/p"}, {}, std::nullopt), std::invalid_argument);
  EXPECT_THROW(ExtraKeys(std::nullopt, {}, ""), std::invalid_argument);
  EXPECT_THROW(items({{"", 0, 1}}), std::invalid_argument);
  EXPECT_THROW(items({{"a", -1, 1}}), std::invalid_argument);
  EXPECT_THROW(items({{"a", 0, 0}}), std::invalid_argument);
}

}  // namespace
}  // namespace pagedkv
