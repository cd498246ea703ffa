#include "pagedkv/manager/cache_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <map>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "groups.h"
#include "random.h"

namespace pagedkv {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::vector<CacheGroupSpec> groups_of(std::size_t count) {
  return std::vector<CacheGroupSpec>(count, full_group());
}

class CacheManagerTest : public testing::Test {
 protected:
  // Allocates and commits every token.
  void compute(Request& request) {
    const std::int32_t cached = manager_.match(request);
    ASSERT_TRUE(manager_.allocate(request, request.num_tokens() - cached, cached));
    manager_.commit(request, request.num_tokens());
  }

  // A request that outlives the manager, which may hold pages for it to the end.
  Request& make_request(std::string request_id, std::vector<TokenId> tokens, ExtraKeys keys = {}) {
    return requests_.emplace_back(std::move(request_id), std::move(tokens), std::move(keys));
  }

  template <typename Call>
  void expect_value_error(Call call, const char* text) {
    EXPECT_THAT(call, ThrowsMessage<std::invalid_argument>(HasSubstr(text)));
    EXPECT_NO_THROW(manager_.check_invariants());
  }

  std::list<Request> requests_;
  CacheManager manager_{8, groups_of(1), 32};
};

TEST_F(CacheManagerTest, RejectsSizesThatCannotWork) {
  EXPECT_THROW(CacheManager(0, groups_of(1), 32), std::invalid_argument);
  EXPECT_THROW(CacheManager(8, groups_of(0), 32), std::invalid_argument);
  EXPECT_THROW(CacheManager(8, groups_of(1), 0), std::invalid_argument);
  const CacheGroupSpec huge{FullAttentionSpec(1 << 30, 1, 1, DType("float32")), {}};
  EXPECT_THROW(CacheManager(2, std::span(&huge, 1), 32), std::invalid_argument);
}

TEST_F(CacheManagerTest, GrowsARequestPageByPage) {
  Request& request = make_request("a", tokens_of(5));
  ASSERT_TRUE(manager_.allocate(request, 5));
  EXPECT_THAT(manager_.page_ids(request, 0), ElementsAre(1, 2));
  EXPECT_EQ(manager_.num_allocated_tokens(request), 5);
  manager_.commit(request, 5);
  for (TokenId token = 0; token < 4; ++token) {
    request.append(token);
    ASSERT_TRUE(manager_.allocate(request, 1));
    manager_.commit(request, request.num_tokens());
  }
  EXPECT_THAT(manager_.page_ids(request, 0), ElementsAre(1, 2, 3));
  EXPECT_EQ(manager_.pool().num_cached_pages(), 2);
  manager_.check_invariants();
}

TEST_F(CacheManagerTest, NeverSharesBetweenSalts) {
  const auto salted = [](std::string salt) { return ExtraKeys(std::nullopt, {}, std::move(salt)); };
  Request& red = make_request("red", tokens_of(8), salted("red"));
  compute(red);
  Request& blue = make_request("blue", tokens_of(8), salted("blue"));
  Request& plain = make_request("plain", tokens_of(8));
  Request& red_again = make_request("red again", tokens_of(8), salted("red"));
  EXPECT_EQ(manager_.match(blue), 0);
  EXPECT_EQ(manager_.match(plain), 0);
  EXPECT_EQ(manager_.match(red_again), 4);
}

TEST_F(CacheManagerTest, RefusesKeysThatItsHasherCannotTake) {
  CacheManager pickler(8, groups_of(1), 32, {.hasher = PageHasher(HashAlgorithm::kSha256)});
  Request& salted = make_request("salted", tokens_of(8), ExtraKeys(std::nullopt, {}, "salt"));
  EXPECT_THROW(pickler.match(salted), std::invalid_argument);
  EXPECT_THROW((void)pickler.allocate(salted, 8), std::invalid_argument);
  EXPECT_FALSE(salted.is_allocated());
  pickler.check_invariants();
}

TEST_F(CacheManagerTest, SharesAPrefixOnlyOnceItIsCommitted) {
  Request& first = make_request("a", tokens_of(10));
  Request& second = make_request("b", tokens_of(10));
  ASSERT_TRUE(manager_.allocate(first, 10));
  EXPECT_EQ(manager_.match(second), 0);
  manager_.commit(first, 7);
  EXPECT_EQ(manager_.match(second), 4);
  manager_.commit(first, 10);
  EXPECT_EQ(manager_.match(second), 8);
  ASSERT_TRUE(manager_.allocate(second, 2, 8));
  EXPECT_THAT(manager_.page_ids(second, 0), ElementsAre(1, 2, 4));
  EXPECT_EQ(second.num_computed_tokens(), 8);
  EXPECT_EQ(manager_.pool().ref_count(1), 2);
  manager_.check_invariants();
}

TEST_F(CacheManagerTest, LeavesOneTokenToCompute) {
  Request& first = make_request("a", tokens_of(8));
  compute(first);
  Request& second = make_request("b", tokens_of(8));
  EXPECT_EQ(manager_.match(second), 4);
}

TEST_F(CacheManagerTest, MatchesNothingForAnEmptyOrRunningRequest) {
  Request& empty = make_request("e", {});
  EXPECT_EQ(manager_.match(empty), 0);
  Request& running = make_request("a", tokens_of(9));
  compute(running);
  EXPECT_EQ(manager_.match(running), 0);
}

TEST_F(CacheManagerTest, TakesPartOfAPrefix) {
  Request& first = make_request("a", tokens_of(12));
  compute(first);
  Request& second = make_request("b", tokens_of(12));
  ASSERT_TRUE(manager_.allocate(second, 3, 4));
  EXPECT_THAT(manager_.page_ids(second, 0), ElementsAre(1, 4));
  manager_.check_invariants();
}

TEST_F(CacheManagerTest, FindsNothingWithCachingOff) {
  CacheManager manager(8, groups_of(1), 32, {.enable_caching = false});
  Request& first = make_request("a", tokens_of(9));
  ASSERT_TRUE(manager.allocate(first, 9));
  manager.commit(first, 9);
  Request& second = make_request("b", tokens_of(9));
  EXPECT_EQ(manager.match(second), 0);
  EXPECT_EQ(manager.pool().num_cached_pages(), 0);
  manager.check_invariants();
}

TEST_F(CacheManagerTest, AllocatesAllOrNothing) {
  Request& big = make_request("a", tokens_of(20));
  compute(big);
  Request& other = make_request("b", tokens_of(12, 500));
  EXPECT_FALSE(manager_.allocate(other, 12));
  EXPECT_FALSE(other.is_allocated());
  EXPECT_EQ(manager_.pool().num_free_pages(), 2);
  ASSERT_TRUE(manager_.allocate(other, 8));
  EXPECT_EQ(manager_.pool().num_free_pages(), 0);
  manager_.check_invariants();
}

TEST_F(CacheManagerTest, CountsRevivedPagesAsTaken) {
  Request& first = make_request("a", tokens_of(20));
  compute(first);
  manager_.free(first);
  Request& second = make_request("b", tokens_of(28));
  EXPECT_EQ(manager_.match(second), 20);
  Request& third = make_request("c", tokens_of(12, 500));
  ASSERT_TRUE(manager_.allocate(third, 8));
  EXPECT_FALSE(manager_.allocate(second, 8, 20)) << "5 cached and 2 new pages, 5 are free";
  EXPECT_FALSE(second.is_allocated());
  EXPECT_TRUE(manager_.allocate(third, 12));
  manager_.check_invariants();
}

TEST_F(CacheManagerTest, EvictsTheTailOfAFreedRequestFirst) {
  Request& first = make_request("a", tokens_of(28));
  compute(first);
  manager_.free(first);
  Request& other = make_request("b", tokens_of(8, 500));
  compute(other);
  EXPECT_THAT(manager_.page_ids(other, 0), ElementsAre(7, 6));
  Request& again = make_request("c", tokens_of(28));
  EXPECT_EQ(manager_.match(again), 20);
}

TEST_F(CacheManagerTest, RefusesAPrefixThatIsGone) {
  Request& first = make_request("a", tokens_of(12));
  compute(first);
  manager_.free(first);
  Request& second = make_request("b", tokens_of(12));
  ASSERT_EQ(manager_.match(second), 8);
  Request& storm = make_request("s", tokens_of(28, 500));
  compute(storm);
  manager_.free(storm);
  expect_value_error([&] { (void)manager_.allocate(second, 4, 8); },
                     "only 0 of the first 8 tokens of request 'b' are cached: match again");
  EXPECT_FALSE(second.is_allocated());
}

TEST_F(CacheManagerTest, RefusesCountsThatCannotBe) {
  Request& request = make_request("a", tokens_of(8));
  const auto allocate = [&](std::int32_t num_new, std::int32_t num_cached = 0) {
    return [&, num_new, num_cached] { (void)manager_.allocate(request, num_new, num_cached); };
  };
  expect_value_error(allocate(0), "num_new_tokens must be >= 1, got 0");
  expect_value_error(allocate(-3), "num_new_tokens must be >= 1, got -3");
  expect_value_error(allocate(9), "request 'a' has 8 tokens, cannot compute 9");
  expect_value_error(allocate(1, 2), "num_cached_tokens must be a multiple of prefix_unit 4");
  expect_value_error(allocate(1, -4), "num_cached_tokens must be a multiple of prefix_unit 4");
  expect_value_error(allocate(1, 4), "only 0 of the first 4 tokens");
  expect_value_error(allocate(2'000'000'000, 2'000'000'000), "max_model_len is 32");
  Request& too_long = make_request("l", tokens_of(40));
  expect_value_error([&] { (void)manager_.allocate(too_long, 33); },
                     "request 'l' would have 33 tokens, max_model_len is 32");
  ASSERT_TRUE(manager_.allocate(request, 4));
  expect_value_error(allocate(1, 4), "request 'a' holds pages already");
  EXPECT_EQ(manager_.num_allocated_tokens(request), 4);
}

TEST_F(CacheManagerTest, RefusesCommitsThatCannotBe) {
  Request& request = make_request("a", tokens_of(8));
  expect_value_error([&] { manager_.commit(request, 1); }, "request 'a' holds no pages");
  ASSERT_TRUE(manager_.allocate(request, 6));
  expect_value_error([&] { manager_.commit(request, 7); }, "has room for 6 tokens, got 7");
  manager_.commit(request, 6);
  expect_value_error([&] { manager_.commit(request, 5); }, "has 6 tokens computed already, got 5");
  EXPECT_EQ(request.num_computed_tokens(), 6);
}

TEST_F(CacheManagerTest, RefusesToFreeTwice) {
  Request& request = make_request("a", tokens_of(8));
  compute(request);
  manager_.free(request);
  EXPECT_EQ(request.num_computed_tokens(), 0);
  expect_value_error([&] { manager_.free(request); },
                     "[CacheManager.free] request 'a' holds no pages (freed already");
}

TEST_F(CacheManagerTest, RefusesARequestOfAnotherManager) {
  CacheManager other(8, groups_of(1), 32);
  Request& request = make_request("a", tokens_of(8));
  ASSERT_TRUE(other.allocate(request, 8));
  expect_value_error([&] { manager_.free(request); }, "holds pages of another manager");
  expect_value_error([&] { manager_.commit(request, 1); }, "holds pages of another manager");
  expect_value_error([&] { (void)manager_.allocate(request, 1); }, "pages of another manager");
  EXPECT_EQ(manager_.num_allocated_tokens(request), 0);
  other.free(request);
}

TEST_F(CacheManagerTest, TakesThePagesOfADestroyedRequestBack) {
  {
    Request request("a", tokens_of(8));
    compute(request);
    EXPECT_EQ(manager_.num_requests(), 1);
  }
  EXPECT_EQ(manager_.num_requests(), 0);
  EXPECT_EQ(manager_.pool().num_free_pages(), manager_.pool().num_pages() - 1);
  manager_.check_invariants();
}

TEST_F(CacheManagerTest, LetsRequestsGoWhenDestroyed) {
  Request& request = make_request("a", tokens_of(8));
  {
    CacheManager other(8, groups_of(1), 32);
    ASSERT_TRUE(other.allocate(request, 8));
  }
  EXPECT_FALSE(request.is_allocated());
  EXPECT_EQ(request.num_computed_tokens(), 0);
  EXPECT_TRUE(manager_.allocate(request, 8));
}

TEST_F(CacheManagerTest, ResetsOnlyWhenIdle) {
  Request& request = make_request("a", tokens_of(8));
  compute(request);
  EXPECT_FALSE(manager_.reset_prefix_cache());
  manager_.free(request);
  EXPECT_EQ(manager_.match(request), 4);
  EXPECT_TRUE(manager_.reset_prefix_cache());
  EXPECT_EQ(manager_.match(request), 0);
}

TEST_F(CacheManagerTest, RefusesAForeignGroup) {
  Request& request = make_request("a", tokens_of(8));
  compute(request);
  EXPECT_THROW(manager_.page_ids(request, 1), std::out_of_range);
  EXPECT_THROW(manager_.page_ids(request, -1), std::out_of_range);
}

std::vector<CacheGroupSpec> window_group(std::int32_t window) {
  return {
      {SlidingWindowSpec(
           {.page_size = kPageSize, .num_kv_heads = 1, .head_size = 1, .dtype = DType("float32")},
           window),
       std::nullopt}};
}

TEST(WindowedCacheManagerTest, GivesPagesBackThatTheWindowHasLeft) {
  CacheManager manager(6, window_group(5), 64);
  Request request("a", tokens_of(40));
  for (std::int32_t computed = 0; computed < 40; computed += 4) {
    ASSERT_TRUE(manager.allocate(request, 4)) << "two pages at a time are enough";
    manager.commit(request, computed + 4);
    manager.check_invariants();
  }
  EXPECT_EQ(manager.pool().num_free_pages(), 3);
  const auto pages = manager.page_ids(request, 0);
  EXPECT_EQ(std::ranges::count(pages, kNullPage), 8);
}

TEST(WindowedCacheManagerTest, CountsOnlyPagesThatComeFree) {
  CacheManager manager(6, window_group(8), 64);
  Request first("a", tokens_of(24));
  ASSERT_TRUE(manager.allocate(first, 12));
  manager.commit(first, 12);
  Request second("b", tokens_of(12));
  ASSERT_EQ(manager.match(second), 8);
  ASSERT_TRUE(manager.allocate(second, 4, 8));
  EXPECT_THAT(manager.page_ids(second, 0), ElementsAre(1, 2, 4));
  // The window of the first has left page 1, but the second holds it.
  EXPECT_FALSE(manager.allocate(first, 8)) << "2 pages needed, 1 free";
  EXPECT_THAT(manager.page_ids(first, 0), ElementsAre(1, 2, 3));
  EXPECT_TRUE(manager.allocate(first, 4));
  EXPECT_THAT(manager.page_ids(first, 0), ElementsAre(0, 2, 3, 5));
  manager.check_invariants();
  manager.free(second);
  manager.commit(first, 16);
  EXPECT_TRUE(manager.allocate(first, 8)) << "page 2 comes free, pages 1 and 4 are";
  manager.check_invariants();
}

TEST(EagleCacheManagerTest, LeavesTheLastPageOfAHitToBeComputedAgain) {
  CacheManager manager(8, groups_of(1), 32, {.use_eagle = true});
  Request first("a", tokens_of(12));
  ASSERT_TRUE(manager.allocate(first, 12));
  manager.commit(first, 12);
  Request second("b", tokens_of(12));
  EXPECT_EQ(manager.match(second), 4);
  EXPECT_TRUE(manager.allocate(second, 8, 4));
}

TEST_F(CacheManagerTest, MakesRoomForDraftTokens) {
  Request& request = make_request("a", tokens_of(4));
  ASSERT_TRUE(manager_.allocate(request, 4, 0, 3));
  EXPECT_EQ(manager_.num_allocated_tokens(request), 7);
  EXPECT_EQ(manager_.page_ids(request, 0).size(), 2U);
  expect_value_error([&] { manager_.commit(request, 5); }, "request 'a' has 4 tokens, got 5");
  expect_value_error([&] { (void)manager_.allocate(request, 1, 0, -1); },
                     "num_lookahead_tokens must be >= 0, got -1");
  Request& longest = make_request("l", tokens_of(32));
  EXPECT_FALSE(manager_.allocate(longest, 24, 0, 1'000'000)) << "max_model_len is 8 pages";
}

TEST_F(CacheManagerTest, CountsPagesThatAllRequestsHold) {
  Request& first = make_request("a", tokens_of(9));
  compute(first);
  Request& second = make_request("b", tokens_of(12));
  compute(second);
  EXPECT_EQ(manager_.num_common_prefix_pages(first, 0, 1), 3);
  EXPECT_EQ(manager_.num_common_prefix_pages(first, 0, 2), 2);
  EXPECT_EQ(manager_.num_common_prefix_pages(first, 0, 3), 0);
  expect_value_error([&] { manager_.num_common_prefix_pages(first, 0, 0); }, "must be >= 1, got 0");
}

/// The same manager on std containers: pages are found by the tokens they and all before hold.
class GoldenManager {
 public:
  using Content = std::pair<std::size_t, std::vector<TokenId>>;  // group, all tokens to page end

  GoldenManager(PageId num_pages, std::size_t num_groups) : num_groups_(num_groups) {
    for (PageId page = 1; page < num_pages; ++page) free_.push_back(page);
  }

  struct Row {
    std::vector<std::vector<PageId>> pages;
    std::vector<std::size_t> num_cached;
    std::size_t computed = 0;
  };

  std::size_t match(const std::vector<TokenId>& tokens) const {
    std::size_t length = 0;
    for (std::size_t next = kPageSize; next + 1 <= tokens.size(); next += kPageSize) {
      for (std::size_t group = 0; group < num_groups_; ++group) {
        if (find(group, tokens, next) == kNoPage) return length;
      }
      length = next;
    }
    return length;
  }

  bool allocate(const std::string& id, const std::vector<TokenId>& tokens, std::size_t num_new,
                std::size_t num_cached) {
    const bool is_new = !rows_.contains(id);
    Row row = is_new ? Row{std::vector<std::vector<PageId>>(num_groups_),
                           std::vector<std::size_t>(num_groups_), num_cached}
                     : rows_[id];
    std::vector<PageId> hits;
    if (is_new) {
      for (std::size_t group = 0; group < num_groups_; ++group) {
        for (std::size_t end = kPageSize; end <= num_cached; end += kPageSize) {
          row.pages[group].push_back(find(group, tokens, end));
          hits.push_back(row.pages[group].back());
        }
        row.num_cached[group] = num_cached / kPageSize;
      }
    }
    const std::size_t want = (row.computed + num_new + kPageSize - 1) / kPageSize;
    std::size_t need = 0;
    for (const auto& pages : row.pages) need += want > pages.size() ? want - pages.size() : 0;
    const auto revived = static_cast<std::size_t>(
        std::ranges::count_if(hits, [&](PageId page) { return ref_[page] == 0; }));
    if (need + revived > free_.size()) return false;
    for (PageId page : hits) {
      if (ref_[page]++ == 0) free_.remove(page);
    }
    for (auto& pages : row.pages) {
      while (pages.size() < want) {
        const PageId page = free_.front();
        free_.pop_front();
        std::erase_if(contents_, [&](const auto& entry) { return entry.second == page; });
        ref_[page] = 1;
        pages.push_back(page);
      }
    }
    rows_[id] = row;
    return true;
  }

  void commit(const std::string& id, const std::vector<TokenId>& tokens, std::size_t computed) {
    Row& row = rows_[id];
    row.computed = computed;
    for (std::size_t group = 0; group < num_groups_; ++group) {
      for (std::size_t& n = row.num_cached[group]; (n + 1) * kPageSize <= computed; ++n) {
        const auto end = tokens.begin() + static_cast<std::ptrdiff_t>((n + 1) * kPageSize);
        contents_.emplace_back(Content(group, std::vector<TokenId>(tokens.begin(), end)),
                               row.pages[group][n]);
      }
    }
  }

  void free(const std::string& id) {
    for (auto& pages : rows_[id].pages) {
      for (auto page = pages.rbegin(); page != pages.rend(); ++page) {
        if (--ref_[*page] == 0) free_.push_back(*page);
      }
    }
    rows_.erase(id);
  }

  const Row& row(const std::string& id) { return rows_[id]; }
  std::size_t num_free() const { return free_.size(); }

 private:
  PageId find(std::size_t group, const std::vector<TokenId>& tokens, std::size_t end) const {
    const Content wanted(
        group, std::vector<TokenId>(tokens.begin(), tokens.begin() + static_cast<long>(end)));
    for (const auto& [content, page] : contents_) {
      if (content == wanted) return page;
    }
    return kNoPage;
  }

  std::size_t num_groups_;
  std::list<PageId> free_;
  std::map<PageId, int> ref_;
  std::vector<std::pair<Content, PageId>> contents_;  // oldest first
  std::map<std::string, Row> rows_;
};

struct Running {
  std::unique_ptr<Request> request;
  std::vector<TokenId> tokens;
};

// Prompts come from a tree with two choices a page, so that prefixes are shared in many ways, and
// the pool is small, so that allocation fails and cached pages are evicted.
void run_against_golden_manager(unsigned seed, std::size_t num_groups) {
  SCOPED_TRACE(testing::Message() << "seed " << seed << ", groups " << num_groups);
  constexpr PageId kPages = 30;
  Random random(seed);
  CacheManager manager(kPages, groups_of(num_groups), 64);
  GoldenManager golden(kPages, num_groups);
  std::vector<Running> running;
  int next_id = 0;
  for (int step = 0; step < 400; ++step) {
    const int choice = random.below(8);
    if (choice < 3 || running.empty()) {
      std::vector<TokenId> tokens;
      for (std::size_t n = 1 + random.below(std::size_t{30}); tokens.size() < n;) {
        const auto page = tokens_of(kPageSize, 100 * random.below(2));
        tokens.insert(tokens.end(), page.begin(), page.end());
      }
      tokens.resize(tokens.size() - random.below(std::size_t{3}));
      auto request = std::make_unique<Request>(std::to_string(next_id++), tokens);
      const std::int32_t cached = manager.match(*request);
      ASSERT_EQ(cached, static_cast<std::int32_t>(golden.match(tokens)));
      const auto rest = tokens.size() - static_cast<std::size_t>(cached);
      const std::size_t num_new = 1 + random.below(rest);
      const bool done = manager.allocate(*request, static_cast<std::int32_t>(num_new), cached);
      ASSERT_EQ(done, golden.allocate(request->request_id(), tokens, num_new,
                                      static_cast<std::size_t>(cached)));
      if (done) running.push_back({std::move(request), std::move(tokens)});
    } else {
      const std::size_t index = random.below(running.size());
      auto& [request, tokens] = running[index];
      const std::string id = request->request_id();
      if (choice < 5) {
        const auto room = manager.num_allocated_tokens(*request) - request->num_computed_tokens();
        const std::int32_t computed = request->num_computed_tokens() + random.below(room + 1);
        manager.commit(*request, computed);
        golden.commit(id, tokens, static_cast<std::size_t>(computed));
      } else if (choice < 7) {
        if (tokens.size() < 60) {
          tokens.push_back(random.below(2));
          request->append(tokens.back());
        }
        const auto rest = tokens.size() - static_cast<std::size_t>(request->num_computed_tokens());
        if (rest > 0) {
          const std::size_t num_new = 1 + random.below(rest);
          ASSERT_EQ(manager.allocate(*request, static_cast<std::int32_t>(num_new)),
                    golden.allocate(id, tokens, num_new, 0));
        }
      } else {
        manager.free(*request);
        golden.free(id);
        running.erase(running.begin() + static_cast<std::ptrdiff_t>(index));
      }
    }
    ASSERT_NO_THROW(manager.check_invariants());
    ASSERT_EQ(manager.pool().num_free_pages(), static_cast<PageId>(golden.num_free()));
    for (const auto& [request, tokens] : running) {
      const auto& row = golden.row(request->request_id());
      for (std::size_t group = 0; group < num_groups; ++group) {
        const auto pages = manager.page_ids(*request, static_cast<GroupId>(group));
        ASSERT_TRUE(std::ranges::equal(pages, row.pages[group]));
      }
    }
  }
  for (const auto& [request, tokens] : running) manager.free(*request);
  EXPECT_EQ(manager.pool().num_free_pages(), kPages - 1);
}

TEST(CacheManagerShardTest, RequestWithoutPagesIsInNoShard) {
  const AttentionLayout layout{
      .page_size = kPageSize, .num_kv_heads = 1, .head_size = 1, .dtype = DType("int8")};
  const CacheGroupSpec chunked{ChunkedLocalAttentionSpec(layout, kPageSize), {}};
  CacheManager manager(8, std::span(&chunked, 1), 32,
                       {.enable_caching = false, .num_shards = 2, .as_easydel = true});
  Request request("a", tokens_of(8));
  ASSERT_TRUE(manager.allocate(request, {.num_new_tokens = 4, .shard = 1}));
  EXPECT_THAT(manager.page_ids(request, 0), ElementsAre(4));
  manager.set_num_computed_tokens(request, 4);  // the end of a chunk
  ASSERT_TRUE(manager.allocate(request, {.num_new_tokens = 4}));
  EXPECT_THAT(manager.page_ids(request, 0), ElementsAre(kNullPage, 1));
}

TEST(CacheManagerRandomTest, MatchesGoldenManager) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    run_against_golden_manager(seed, 1);
    run_against_golden_manager(seed, 2);
    if (testing::Test::HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace pagedkv
