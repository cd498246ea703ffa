#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "groups.h"
#include "pagedkv/manager/cache_manager.h"

namespace pagedkv {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

class CacheManagerRetentionTest : public testing::Test {
 protected:
  Request& make_request(std::size_t num_tokens, TokenId first,
                        std::optional<Retention> retention = std::nullopt) {
    Request& request = requests_.emplace_back("r" + std::to_string(requests_.size()),
                                              tokens_of(num_tokens, first));
    if (retention) request.retain(std::make_shared<Retention>(*std::move(retention)));
    return request;
  }

  // Allocates and commits every token.
  void compute(Request& request) {
    const std::int32_t cached = manager_.match(request);
    ASSERT_TRUE(manager_.allocate(request, request.num_tokens() - cached, cached));
    manager_.commit(request, request.num_tokens());
    manager_.check_invariants();
  }

  // Computes a prompt of full pages and lets it go.
  void serve(Request& request) {
    compute(request);
    manager_.free(request);
    manager_.check_invariants();
  }

  bool is_cached(std::size_t num_tokens, TokenId first) {
    Request request("probe", tokens_of(num_tokens + 1, first));
    return manager_.match(request) == static_cast<std::int32_t>(num_tokens);
  }

  std::list<Request> requests_;
  std::vector<CacheGroupSpec> groups_{full_group()};
  CacheManager manager_{12, groups_, 64};
};

TEST_F(CacheManagerRetentionTest, PagesOfARequestAreOnTheTermsOfTheirTokens) {
  Request& request =
      make_request(10, 0,
                   Retention({.tenant = 4}, {{.begin = 0, .end = 4, .priority = 90, .ttl = 7}},
                             RetentionTerm{.priority = 20}));
  compute(request);
  request.append(tokens_of(6, 500));
  ASSERT_TRUE(manager_.allocate(request, 6));
  const auto pages = manager_.page_ids(request, 0);
  ASSERT_EQ(pages.size(), 4);
  const auto term = [&](std::size_t i) { return manager_.pool().term(pages[i]); };
  EXPECT_EQ(term(0), (RetentionTerm{90, 7, 4}));
  EXPECT_EQ(term(1), (RetentionTerm{.tenant = 4}));
  EXPECT_EQ(term(2).priority, 50) << "prompt and output";
  EXPECT_EQ(term(3).priority, 20);
  EXPECT_EQ(manager_.pool().num_tenant_pages(4), 4);
  manager_.free(request);
  EXPECT_EQ(manager_.pool().num_tenant_pages(4), 2) << "two were committed";
}

TEST_F(CacheManagerRetentionTest, AHitLiftsThePagesItShares) {
  serve(make_request(8, 0, Retention({.priority = 10})));
  const PageId page = manager_.pool().free_pages().back();
  EXPECT_EQ(manager_.pool().term(page).priority, 10);
  compute(make_request(9, 0, Retention({.priority = 70})));
  EXPECT_EQ(manager_.pool().term(page).priority, 70);
}

TEST_F(CacheManagerRetentionTest, PinnedPagesSurviveAndAreNotFree) {
  Request& request = make_request(9, 0);
  compute(request);
  const PinId pin = manager_.pin(request);
  manager_.check_invariants();
  manager_.free(request);
  EXPECT_EQ(manager_.pins().num_pages(), 2) << "the third page is not full";
  EXPECT_EQ(manager_.pool().num_free_pages(), 9);
  for (TokenId i = 1; i < 20; ++i) serve(make_request(32, 1000 * i));
  EXPECT_TRUE(is_cached(8, 0));
  EXPECT_FALSE(manager_.reset_prefix_cache()) << "pinned";
  manager_.unpin(pin);
  manager_.check_invariants();
  EXPECT_EQ(manager_.pool().free_pages().back(), 1) << "the last of a pin is evicted first";
  EXPECT_EQ(manager_.pool().num_free_pages(), 11);
  for (TokenId i = 1; i < 4; ++i) serve(make_request(32, 100'000 * i));
  EXPECT_FALSE(is_cached(8, 0));
  EXPECT_TRUE(manager_.reset_prefix_cache());
}

TEST_F(CacheManagerRetentionTest, PinsAreCountedEach) {
  Request& request = make_request(8, 0);
  compute(request);
  const PinId first = manager_.pin(request);
  const PinId second = manager_.pin(request);
  EXPECT_NE(first, second);
  manager_.free(request);
  manager_.unpin(first);
  EXPECT_EQ(manager_.pins().num_pages(), 2);
  EXPECT_EQ(manager_.pins().num_pins(), 1);
  EXPECT_THAT(
      [&] { manager_.unpin(first); },
      ThrowsMessage<std::invalid_argument>(HasSubstr("[CacheManager.unpin] there is no pin")));
  manager_.unpin(second);
  EXPECT_EQ(manager_.pool().num_free_pages(), 11);
}

TEST_F(CacheManagerRetentionTest, OnlyCommittedPagesCanBePinned) {
  Request& request = make_request(8, 0);
  EXPECT_THROW(manager_.pin(request), std::invalid_argument);
  ASSERT_TRUE(manager_.allocate(request, 8));
  EXPECT_THAT([&] { manager_.pin(request); },
              ThrowsMessage<std::invalid_argument>(HasSubstr("has no committed pages")));
  manager_.commit(request, 5);
  manager_.pin(request);
  EXPECT_EQ(manager_.pins().num_pages(), 1);
}

TEST_F(CacheManagerRetentionTest, PinsAreNoRequestsThatSharePrefixes) {
  Request& request = make_request(8, 0);
  compute(request);
  manager_.pin(request);
  EXPECT_EQ(manager_.num_common_prefix_pages(request, 0, 1), 2);
  EXPECT_EQ(manager_.num_common_prefix_pages(request, 0, 2), 0);
}

TEST_F(CacheManagerRetentionTest, PagesThatAWindowLeavesBehindAreOnTheirTerms) {
  const std::vector<CacheGroupSpec> groups{window_group(4)};
  CacheManager manager(12, groups, 64);
  Request request("a", tokens_of(16));
  request.retain(std::make_shared<Retention>(RetentionTerm{.priority = 80, .tenant = 1}));
  ASSERT_TRUE(manager.allocate(request, 16));
  manager.commit(request, 16);
  request.append(1);
  ASSERT_TRUE(manager.allocate(request, 1));
  manager.check_invariants();
  EXPECT_EQ(manager.pool().num_tenant_pages(1), 5) << "free ones with content among them";
  manager.free(request);
  manager.check_invariants();
  EXPECT_EQ(manager.pool().num_tenant_pages(1), 4);
}

TEST_F(CacheManagerRetentionTest, RowsGoOnSideBySideIfThatIsPreferred) {
  CacheManager manager(16, groups_, 64, {.prefer_contiguous = true});
  std::list<Request> requests;
  const auto start = [&](std::size_t num_tokens, TokenId first) -> Request& {
    Request& request = requests.emplace_back("r", tokens_of(num_tokens, first));
    EXPECT_TRUE(manager.allocate(request, static_cast<std::int32_t>(num_tokens)));
    return request;
  };
  Request& first = start(8, 0);    // 1 2
  Request& second = start(8, 50);  // 3 4
  Request& third = start(8, 90);   // 5 6
  manager.free(second);
  first.append(tokens_of(8));
  ASSERT_TRUE(manager.allocate(first, 16));
  EXPECT_THAT(manager.page_ids(first, 0), ElementsAre(1, 2, 3, 4));
  third.append(tokens_of(12));
  ASSERT_TRUE(manager.allocate(third, 20));
  EXPECT_THAT(manager.page_ids(third, 0), ElementsAre(5, 6, 7, 8, 9));
  manager.check_invariants();
}

TEST_F(CacheManagerRetentionTest, AForkLiftsWhatItSharesAndOwnsWhatItCopies) {
  Request& parent = make_request(6, 0);
  compute(parent);
  Request& child = make_request(6, 0, Retention({.priority = 70, .tenant = 2}));
  std::vector<PageCopies> copies;
  ASSERT_TRUE(manager_.fork(parent, child, copies));
  manager_.check_invariants();
  const auto pages = manager_.page_ids(child, 0);
  EXPECT_EQ(manager_.pool().term(pages[0]), (RetentionTerm{.priority = 70}));
  EXPECT_EQ(manager_.pool().term(pages[1]), (RetentionTerm{.priority = 70, .tenant = 2}));
  EXPECT_EQ(manager_.pool().term(manager_.page_ids(parent, 0)[1]), RetentionTerm{});
  EXPECT_EQ(manager_.pool().num_tenant_pages(2), 1);
}

TEST_F(CacheManagerRetentionTest, APageThatReplacesItsDuplicateIsOnTheStrongerTerm) {
  CacheManager manager(12, groups_, 64, {.deduplicate = true});
  Request first("first", tokens_of(8));
  Request second("second", tokens_of(8));
  second.retain(std::make_shared<Retention>(RetentionTerm{.priority = 90, .tenant = 3}));
  ASSERT_TRUE(manager.allocate(first, 8));
  ASSERT_TRUE(manager.allocate(second, 8));
  manager.commit(first, 8);
  EXPECT_EQ(manager.pool().num_tenant_pages(3), 2);
  manager.commit(second, 8);
  manager.check_invariants();
  const PageId page = manager.page_ids(second, 0)[0];
  EXPECT_EQ(page, manager.page_ids(first, 0)[0]);
  EXPECT_EQ(manager.pool().term(page), (RetentionTerm{.priority = 90}));
  EXPECT_EQ(manager.pool().num_tenant_pages(3), 0);
}

TEST_F(CacheManagerRetentionTest, OptionsThatEasydelDoesNotHaveAreRefusedWithIt) {
  EXPECT_THROW(CacheManager(8, groups_, 64, {.as_easydel = true, .prefer_contiguous = true}),
               std::invalid_argument);
  EXPECT_THROW(
      CacheManager(8, groups_, 64, {.as_easydel = true, .free_order = FreeOrder::kUncachedFirst}),
      std::invalid_argument);
}

}  // namespace
}  // namespace pagedkv
