#include "pagedkv/manager/request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

#include "pagedkv/hash/page_hasher.h"

namespace pagedkv {
namespace {

using testing::ElementsAre;

TEST(RequestTest, AppendsTokens) {
  Request request("a", {1, 2});
  request.append(3);
  request.append(std::vector<TokenId>{4, 5});
  EXPECT_THAT(request.tokens(), ElementsAre(1, 2, 3, 4, 5));
  EXPECT_EQ(request.num_tokens(), 5);
  EXPECT_EQ(request.num_computed_tokens(), 0);
  EXPECT_FALSE(request.is_allocated());
}

TEST(RequestTest, HashesOnlyFullPages) {
  Request request("a", {1, 2, 3, 4, 5});
  const PageHasher hasher;
  const PageHash root = hasher.root();
  EXPECT_EQ(request.page_hashes(2, hasher).size(), 2U);
  EXPECT_EQ(request.page_hash(0), hash_page(root, std::vector<TokenId>{1, 2}));
  EXPECT_EQ(request.page_hash(1), hash_page(request.page_hash(0), std::vector<TokenId>{3, 4}));
  EXPECT_THROW(request.page_hash(2), std::out_of_range);
  EXPECT_THROW(request.page_hash(-1), std::out_of_range);
  request.append(6);
  EXPECT_EQ(request.page_hash(2), hash_page(request.page_hash(1), std::vector<TokenId>{5, 6}));
}

TEST(RequestTest, HashesAnewForAnotherPageSizeOrRoot) {
  Request request("a", {1, 2, 3, 4});
  const PageHasher hasher;
  const PageHasher other(HashAlgorithm::kSha256Cbor, "another seed");
  request.page_hashes(2, hasher);
  EXPECT_EQ(request.page_hashes(4, hasher).size(), 1U);
  EXPECT_EQ(request.page_hashes(4, other)[0],
            hash_page(other.root(), std::vector<TokenId>{1, 2, 3, 4}));
}

TEST(RequestTest, TakesOffGuessesAndTheirDigests) {
  Request request("a", {1, 2, 3});
  const PageHasher hasher;
  request.append(std::vector<TokenId>{7, 8, 9});
  request.page_hashes(2, hasher);
  request.truncate(3);
  request.append(4);
  EXPECT_THAT(request.tokens(), ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(request.page_hash(1), hash_page(request.page_hash(0), std::vector<TokenId>{3, 4}));
  EXPECT_THROW(request.truncate(5), std::invalid_argument) << "there are fewer";
  EXPECT_THROW(request.truncate(-1), std::invalid_argument);
}

TEST(RequestTest, KeepsTokensThatItsExtraKeysAreAbout) {
  Request request("a", {1, 2, 3, 4}, ExtraKeys({}, {{"image", 1, 2}}, {}));
  request.truncate(3);
  EXPECT_THROW(request.truncate(2), std::invalid_argument);
  EXPECT_EQ(request.num_tokens(), 3);
}

TEST(RequestTest, HasNoDigestsBeforeAManagerSawIt) {
  Request request("a", {1, 2});
  EXPECT_THROW(request.page_hash(0), std::invalid_argument);
}

TEST(RequestTest, CountsThePagesToHash) {
  Request request("a", {1, 2, 3, 4, 5});
  const PageHasher hasher;
  EXPECT_EQ(request.num_pages_to_hash(2, hasher), 2);
  request.page_hashes(2, hasher);
  EXPECT_EQ(request.num_pages_to_hash(2, hasher), 0);
  EXPECT_EQ(request.num_pages_to_hash(1, hasher), 5) << "another page size";
  EXPECT_EQ(request.num_pages_to_hash(2, PageHasher(HashAlgorithm::kPagedkv)), 2);
  request.append(6);
  EXPECT_EQ(request.num_pages_to_hash(2, hasher), 1);
}

TEST(RequestTest, RefusesKeysBehindItsLastToken) {
  const auto with_item = [](MultimodalItem item) {
    Request("a", {1, 2, 3}, ExtraKeys(std::nullopt, {std::move(item)}, std::nullopt));
  };
  EXPECT_NO_THROW(with_item({"cat", 1, 2}));
  EXPECT_THROW(with_item({"cat", 2, 2}), std::invalid_argument);
  EXPECT_THROW(with_item({"cat", 4, 1}), std::invalid_argument);
}

TEST(RequestTest, RefusesToBeHashedWithoutItsKeys) {
  Request request("a", {1, 2}, ExtraKeys(std::nullopt, {}, "salt"));
  EXPECT_NO_THROW(request.page_hashes(2, PageHasher(HashAlgorithm::kPagedkv)));
  EXPECT_THROW(request.page_hashes(2, PageHasher(HashAlgorithm::kSha256)), std::invalid_argument);
}

}  // namespace
}  // namespace pagedkv
