#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "hashes.h"
#include "pagedkv/pool/page_pool.h"
#include "random.h"

namespace pagedkv {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr std::int64_t kForever = RetentionTerm::kForever;

// A pool whose pages get new content each time.
class PagePoolRetentionTest : public testing::Test {
 protected:
  std::vector<PageId> take(std::size_t count, const RetentionTerm& term = {}) {
    std::vector<PageId> pages(count, kNoPage);
    EXPECT_TRUE(pool_.allocate(pages, {.term = term}));
    return pages;
  }

  void free(std::vector<PageId> pages) { pool_.free(pages); }

  // Allocates, gives content, and frees.
  std::vector<PageId> keep(std::size_t count, const RetentionTerm& term = {}) {
    const std::vector<PageId> pages = take(count, term);
    for (const PageId page : pages) pool_.cache(page, hash_of(next_content_++), 0);
    pool_.free(pages);
    return pages;
  }

  void TearDown() override { pool_.check_invariants(); }

  PagePool pool_{9};
  unsigned next_content_ = 0;
};

TEST_F(PagePoolRetentionTest, EvictsLowPrioritiesFirstAndInEachTheColdest) {
  keep(2, {.priority = 80});
  keep(2, {.priority = 20});
  keep(2, {.priority = 80});
  keep(2);
  EXPECT_THAT(pool_.free_pages(), ElementsAre(3, 4, 7, 8, 1, 2, 5, 6));
  EXPECT_THAT(take(8), ElementsAre(3, 4, 7, 8, 1, 2, 5, 6));
}

TEST_F(PagePoolRetentionTest, PagesWithoutContentGoBeforeOthersThanTheDefault) {
  keep(2, {.priority = 20});
  EXPECT_THAT(pool_.free_pages(), ElementsAre(3, 4, 5, 6, 7, 8, 1, 2));
  EXPECT_THAT(take(7), ElementsAre(3, 4, 5, 6, 7, 8, 1));
}

TEST_F(PagePoolRetentionTest, PagesWithoutContentAreInLruOrderWithTheDefault) {
  keep(2, {.priority = 80});
  keep(2);
  EXPECT_THAT(take(5), ElementsAre(5, 6, 7, 8, 3));
}

TEST_F(PagePoolRetentionTest, TimeCountsFromWhenAPageWasFreed) {
  const auto pages = take(1, {.priority = 80, .ttl = 10});
  pool_.cache(1, hash_of(0), 0);
  pool_.advance_time(100);
  free(pages);
  keep(7, {.priority = 60});
  pool_.advance_time(109);
  EXPECT_EQ(pool_.term(1).priority, 80);
  EXPECT_EQ(pool_.free_pages().back(), 1);
  pool_.advance_time(110);
  EXPECT_EQ(pool_.term(1), RetentionTerm{});
  EXPECT_THAT(take(1), ElementsAre(1));
}

TEST_F(PagePoolRetentionTest, PagesThatRunOutAreWhereTheyWouldHaveBeen) {
  keep(2);
  keep(2, {.priority = 90, .ttl = 5});
  keep(2);
  keep(2, {.priority = 10, .ttl = 5});
  EXPECT_THAT(pool_.free_pages(), ElementsAre(7, 8, 1, 2, 5, 6, 3, 4));
  pool_.advance_time(5);
  EXPECT_THAT(pool_.free_pages(), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
  EXPECT_THAT(take(8), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
}

TEST_F(PagePoolRetentionTest, UseStartsTheTimeAnew) {
  const auto pages = keep(1, {.priority = 80, .ttl = 10});
  pool_.advance_time(9);
  pool_.hold(pages);
  pool_.advance_time(30);
  free(pages);
  pool_.advance_time(39);
  EXPECT_EQ(pool_.term(1).priority, 80);
  pool_.advance_time(40);
  EXPECT_EQ(pool_.term(1).priority, 50);
}

TEST_F(PagePoolRetentionTest, TheStrongestTermOfAllHoldersWins) {
  const auto page = take(1, {.priority = 60, .ttl = 5});
  pool_.hold(page, {.priority = 60, .ttl = 4});
  EXPECT_EQ(pool_.term(1).ttl, 5);
  pool_.hold(page, {.priority = 60});
  EXPECT_EQ(pool_.term(1).ttl, kForever);
  pool_.hold(page, {.priority = 70, .ttl = 3, .tenant = 4});
  EXPECT_EQ(pool_.term(1), (RetentionTerm{.priority = 70, .ttl = 3}));
  pool_.hold(page, {});
  EXPECT_EQ(pool_.term(1).priority, 70);
}

TEST_F(PagePoolRetentionTest, HoldingOnTheDefaultTermLiftsALowPriority) {
  const auto page = keep(1, {.priority = 10});
  pool_.hold(page, {});
  free(page);
  EXPECT_EQ(pool_.term(1), RetentionTerm{});
}

TEST_F(PagePoolRetentionTest, ATenantOverItsQuotaEvictsItsOwnPagesFirst) {
  pool_.set_tenant_quota(7, 2);
  keep(3);
  keep(2, {.priority = 100, .tenant = 7});
  EXPECT_EQ(pool_.num_tenant_pages(7), 2);
  EXPECT_THAT(take(1, {.tenant = 7}), ElementsAre(4)) << "not 6, which is blank";
  EXPECT_EQ(pool_.num_tenant_pages(7), 2);
  EXPECT_THAT(take(1, {.tenant = 8}), ElementsAre(6)) << "7 has its quota and no more";
  EXPECT_THAT(take(3, {.tenant = 7}), ElementsAre(5, 7, 8)) << "a quota is no refusal";
  EXPECT_EQ(pool_.num_tenant_pages(7), 4);
}

TEST_F(PagePoolRetentionTest, PagesOfATenantOverItsQuotaAreTheFirstVictimsOfAll) {
  keep(2);
  keep(3, {.priority = 100, .tenant = 7});
  pool_.set_tenant_quota(7, 1);
  EXPECT_THAT(take(3), ElementsAre(3, 4, 6)) << "with one page left, it is within its quota";
  pool_.set_tenant_quota(7, std::nullopt);
}

TEST_F(PagePoolRetentionTest, FreePagesWithoutContentAreNobodys) {
  pool_.set_tenant_quota(7, 1);
  const auto pages = take(3, {.priority = 90, .tenant = 7});
  EXPECT_EQ(pool_.num_tenant_pages(7), 3);
  free(pages);
  EXPECT_EQ(pool_.num_tenant_pages(7), 0);
  EXPECT_EQ(pool_.term(1), RetentionTerm{});
}

TEST_F(PagePoolRetentionTest, AHitCountsForTheTenantThatBroughtThePageIn) {
  const auto pages = keep(2, {.tenant = 7});
  pool_.hold(pages, {.tenant = 8});
  EXPECT_EQ(pool_.num_tenant_pages(7), 2);
  EXPECT_EQ(pool_.num_tenant_pages(8), 0);
  free(pages);
  EXPECT_EQ(pool_.num_tenant_pages(7), 2);
}

TEST_F(PagePoolRetentionTest, ResetKeepsQuotasAndTheOrder) {
  pool_.set_tenant_quota(7, 2);
  keep(2, {.priority = 90, .tenant = 7});
  keep(2);
  EXPECT_TRUE(pool_.reset_prefix_cache());
  pool_.check_invariants();
  EXPECT_EQ(pool_.num_tenant_pages(7), 0);
  EXPECT_THAT(pool_.free_pages(), ElementsAre(5, 6, 7, 8, 1, 2, 3, 4));
  keep(3, {.tenant = 7});
  EXPECT_THAT(take(1), ElementsAre(5)) << "over the quota of 2";
}

TEST_F(PagePoolRetentionTest, RefusesTermsAndQuotasOutOfRange) {
  std::vector<PageId> page(1, kNoPage);
  const auto expect_refused = [&](const RetentionTerm& term, const char* text) {
    EXPECT_THAT([&] { (void)pool_.allocate(page, {.term = term}); },
                ThrowsMessage<std::invalid_argument>(HasSubstr(text)));
    EXPECT_EQ(pool_.num_free_pages(), 8);
  };
  expect_refused({.priority = 101}, "[PagePool.allocate] priority must be in [0, 100], got 101");
  expect_refused({.priority = -1}, "got -1");
  expect_refused({.ttl = 0}, "ttl must be >= 1, got 0");
  expect_refused({.tenant = -2}, "tenant must be >= 0, got -2");
  for (const PageId after : {0, -2, 9, 2'147'483'647}) {
    EXPECT_THROW((void)pool_.allocate(page, {.contiguous = true, .after = after}),
                 std::out_of_range);
  }
  EXPECT_THROW(pool_.set_tenant_quota(-1, 3), std::invalid_argument);
  EXPECT_THROW(pool_.set_tenant_quota(1, -1), std::invalid_argument);
  EXPECT_THROW(pool_.term(9), std::out_of_range);
  pool_.advance_time(5);
  EXPECT_THAT([&] { pool_.advance_time(4); },
              ThrowsMessage<std::invalid_argument>(HasSubstr("the time was 5 already, got 4")));
  EXPECT_EQ(pool_.now(), 5);
  take(1);
  EXPECT_THROW(pool_.hold(std::vector<PageId>{1}, {.priority = 101}), std::invalid_argument);
  EXPECT_EQ(pool_.ref_count(1), 1);
}

TEST_F(PagePoolRetentionTest, UncachedFirstIsVllmsOrder) {
  PagePool pool(7, FreeOrder::kUncachedFirst);
  std::vector<PageId> pages(5, kNoPage);
  ASSERT_TRUE(pool.allocate(pages));
  for (const PageId page : {1, 2}) pool.cache(page, hash_of(static_cast<unsigned>(page)), 0);
  pool.free(std::vector<PageId>{4, 3, 2, 1});
  EXPECT_THAT(pool.free_pages(), ElementsAre(4, 3, 6, 2, 1));
  pool.free(std::vector<PageId>{5});
  EXPECT_THAT(pool.free_pages(), ElementsAre(5, 4, 3, 6, 2, 1));
  pool.set_num_shards(7);
  EXPECT_THAT(pool.free_pages(), ElementsAre(5, 4, 3, 6, 2, 1));
  pool.check_invariants();
  pool.set_tenant_quota(1, 1);  // makes lanes
  EXPECT_THAT(pool.free_pages(), ElementsAre(5, 4, 3, 6, 2, 1));
}

TEST_F(PagePoolRetentionTest, ContiguousPagesRiseAndGoOnWithTheRow) {
  const auto pages = take(8);
  for (const PageId page : {5, 2}) pool_.cache(page, hash_of(static_cast<unsigned>(page)), 0);
  free({5, 7, 2, 4, 3, 8});
  std::vector<PageId> row(4, kNoPage);
  ASSERT_TRUE(pool_.allocate(row, {.contiguous = true, .after = 6}));
  EXPECT_THAT(row, ElementsAre(7, 8, 2, 5)) << "7 and 8 go on; then the coldest, which are 5 and 2";
}

TEST_F(PagePoolRetentionTest, ContiguousPagesStayInTheShardAndThePool) {
  PagePool pool(8);
  pool.set_num_shards(2);
  std::vector<PageId> row(1, kNoPage);
  ASSERT_TRUE(pool.allocate(row, {.shard = 0, .contiguous = true, .after = 3}));
  EXPECT_THAT(row, ElementsAre(1));
  ASSERT_TRUE(pool.allocate(row, {.contiguous = true, .after = 7}));
  EXPECT_THAT(row, ElementsAre(2));
  pool.check_invariants();
}

// The same rules on a vector, by scanning it.
class GoldenPool {
 public:
  explicit GoldenPool(PageId num_pages, bool uncached_first)
      : pages_(static_cast<std::size_t>(num_pages)), uncached_first_(uncached_first) {
    for (PageId page = 1; page < num_pages; ++page) at(page).freed_at = ++clock_;
  }

  struct Item {
    int ref = 0;
    int content = -1;
    RetentionTerm term;
    std::int64_t freed_at = 0;
    std::int64_t expires_at = kForever;
  };

  Item& at(PageId page) { return pages_[static_cast<std::size_t>(page)]; }
  const Item& at(PageId page) const { return pages_[static_cast<std::size_t>(page)]; }
  PageId size() const { return static_cast<PageId>(pages_.size()); }

  std::vector<PageId> free_of(PageRange range) const {
    std::vector<PageId> free;
    for (PageId page = std::max(range.begin, 1); page < range.end; ++page) {
      if (at(page).ref == 0) free.push_back(page);
    }
    return free;
  }

  PageId usage(TenantId tenant) const {
    return static_cast<PageId>(std::count_if(pages_.begin() + 1, pages_.end(), [&](const Item& i) {
      return i.term.tenant == tenant && (i.ref > 0 || i.content >= 0);
    }));
  }

  PageId quota(TenantId tenant) const {
    const auto found = quotas.find(tenant);
    return found == quotas.end() ? 1 << 30 : found->second;
  }

  bool is_over(PageId page) const {
    return at(page).content >= 0 && usage(at(page).term.tenant) > quota(at(page).term.tenant);
  }

  // Pages that a quota says must go first.
  std::vector<PageId> forced(PageRange range, TenantId tenant) const {
    std::vector<PageId> own;
    std::vector<PageId> over;
    for (const PageId page : free_of(range)) {
      if (at(page).content < 0) continue;
      if (at(page).term.tenant == tenant && usage(tenant) >= quota(tenant)) own.push_back(page);
      if (is_over(page)) over.push_back(page);
    }
    return own.empty() ? over : own;
  }

  PageId pop(PageRange range, TenantId tenant) const {
    const auto rank = [&](PageId page) {
      return std::tuple(at(page).term.priority, at(page).freed_at);
    };
    const std::vector<PageId> must = forced(range, tenant);
    if (!must.empty()) return *std::ranges::min_element(must, {}, rank);
    PageId blank = kNoPage;
    PageId full = kNoPage;
    for (const PageId page : free_of(range)) {
      PageId& best = at(page).content < 0 ? blank : full;
      if (best == kNoPage || (at(page).content < 0 ? at(page).freed_at < at(best).freed_at
                                                   : rank(page) < rank(best))) {
        best = page;
      }
    }
    if (blank == kNoPage) return full;
    if (full == kNoPage || uncached_first_ || at(full).term.priority != 50) return blank;
    return at(blank).freed_at < at(full).freed_at ? blank : full;
  }

  std::vector<PageId> allocate(std::size_t count, PageRange range, const PageClaim& claim) {
    std::vector<PageId> out;
    if (free_of(range).size() < count) return out;
    if (claim.contiguous && claim.after != kNoPage) {
      for (PageId next = claim.after + 1; out.size() < count; ++next) {
        if (!range.contains(next) || at(next).ref > 0 || at(next).content >= 0) break;
        if (!forced(range, claim.term.tenant).empty()) break;
        hand_out(next, claim.term);
        out.push_back(next);
      }
    }
    const auto taken = static_cast<std::ptrdiff_t>(out.size());
    while (out.size() < count) {
      const PageId page = pop(range, claim.term.tenant);
      hand_out(page, claim.term);
      out.push_back(page);
    }
    if (claim.contiguous) std::sort(out.begin() + taken, out.end());
    return out;
  }

  void hand_out(PageId page, RetentionTerm term) {
    if (term.priority == 50) term.ttl = kForever;
    at(page) = {.ref = 1, .content = -1, .term = term, .freed_at = 0, .expires_at = kForever};
  }

  void hold(PageId page, std::optional<RetentionTerm> term) {
    if (at(page).ref++ == 0 && at(page).content < 0) at(page).term = {};
    if (!term) return;
    if (term->priority == 50) term->ttl = kForever;
    if (std::tuple(term->priority, term->ttl) <=
        std::tuple(at(page).term.priority, at(page).term.ttl)) {
      return;
    }
    at(page).term.priority = term->priority;
    at(page).term.ttl = term->ttl;
  }

  void free(const std::vector<PageId>& pages) {
    std::vector<PageId> gone;
    for (const PageId page : pages) {
      if (--at(page).ref == 0) gone.push_back(page);
    }
    if (uncached_first_) {
      std::ranges::reverse(gone);
      for (const PageId page : gone) {
        if (at(page).content < 0) at(page).freed_at = -++clock_;
      }
      std::ranges::reverse(gone);
    }
    for (const PageId page : gone) {
      Item& item = at(page);
      if (item.content < 0) item.term = {};
      if (item.content < 0 && uncached_first_) continue;
      item.freed_at = ++clock_;
      item.expires_at = item.term.ttl == kForever ? kForever : now_ + item.term.ttl;
    }
  }

  void advance(std::int64_t now) {
    now_ = now;
    for (Item& item : pages_) {
      if (item.ref > 0 || item.content < 0 || item.expires_at > now) continue;
      item.term = {.tenant = item.term.tenant};
      item.expires_at = kForever;
    }
  }

  bool reset() {
    if (free_of({0, size()}).size() + 1 != pages_.size()) return false;
    for (Item& item : pages_) {
      item.content = -1;
      item.term = {};
    }
    return true;
  }

  std::map<TenantId, PageId> quotas;

 private:
  std::vector<Item> pages_;
  bool uncached_first_;
  std::int64_t clock_ = 0;
  std::int64_t now_ = 0;
};

RetentionTerm random_term(Random& random) {
  constexpr std::int32_t kPriorities[] = {50, 50, 0, 30, 90, 100};
  constexpr std::int64_t kTtls[] = {kForever, 1, 3, 8};
  return {.priority = kPriorities[random.below(std::size(kPriorities))],
          .ttl = kTtls[random.below(std::size(kTtls))],
          .tenant = random.below(4) - 1};
}

class PagePoolRetentionGoldenTest : public testing::TestWithParam<FreeOrder> {};

TEST_P(PagePoolRetentionGoldenTest, MatchesUnderRandomOperations) {
  constexpr PageId kPages = 24;
  for (unsigned seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    PagePool pool(kPages, GetParam());
    GoldenPool golden(kPages, GetParam() == FreeOrder::kUncachedFirst);
    std::int64_t now = 0;
    unsigned next_content = 0;
    for (int step = 0; step < 500; ++step) {
      const PageId page = 1 + random.below(kPages - 1);
      switch (random.below(16)) {
        case 0:
        case 1:
        case 2:
        case 3: {
          PageClaim claim{.shard = random.below(pool.shards().size() + 1) - 1,
                          .term = random_term(random),
                          .contiguous = random.below(3) == 0,
                          .after = page};
          if (random.below(3) == 0) claim.term = {};
          std::vector<PageId> pages(random.below(std::size_t{6}), kNoPage);
          const auto expected =
              golden.allocate(pages.size(), pool.shards().pages_of(claim.shard), claim);
          ASSERT_EQ(pool.allocate(pages, claim), expected.size() == pages.size());
          if (expected.size() == pages.size()) {
            ASSERT_EQ(pages, expected);
          }
          break;
        }
        case 4: {
          const auto term =
              random.below(2) == 0 ? std::optional(random_term(random)) : std::nullopt;
          if (term) {
            pool.hold(std::span(&page, 1), *term);
          } else {
            pool.hold(std::span(&page, 1));
          }
          golden.hold(page, term);
          break;
        }
        case 5: {
          const std::int32_t count = std::vector{1, 2, 3, 4}[random.below(std::size_t{4})];
          if (random.below(4) == 0) pool.set_num_shards(count);
          break;
        }
        case 6:
          now += random.below(4);
          pool.advance_time(now);
          golden.advance(now);
          break;
        case 7: {
          const TenantId tenant = random.below(3);
          if (random.below(3) == 0) {
            pool.set_tenant_quota(tenant, std::nullopt);
            golden.quotas.erase(tenant);
          } else {
            golden.quotas[tenant] = random.below(10);
            pool.set_tenant_quota(tenant, golden.quotas[tenant]);
          }
          break;
        }
        case 8:
          if (random.below(8) == 0) {
            for (PageId p = 1; p < kPages; ++p) {
              while (golden.at(p).ref > 0) {
                pool.free(std::span(&p, 1));
                golden.free({p});
              }
            }
          }
          ASSERT_EQ(pool.reset_prefix_cache(), golden.reset());
          break;
        case 9:
        case 10:
        case 11:
        case 12: {
          std::vector<PageId> held;
          for (PageId p = 1; p < kPages; ++p) {
            for (int i = 0; i < golden.at(p).ref; ++i) {
              if (random.below(3) == 0) held.push_back(p);
            }
          }
          pool.free(held);
          golden.free(held);
          break;
        }
        default:
          for (PageId p = 1; p < kPages; ++p) {
            if (golden.at(p).ref == 0 || golden.at(p).content >= 0 || random.below(2) == 0)
              continue;
            golden.at(p).content = static_cast<int>(next_content);
            pool.cache(p, hash_of(next_content++), 0);
          }
      }
      ASSERT_NO_THROW(pool.check_invariants());
      for (PageId p = 1; p < kPages; ++p) {
        ASSERT_EQ(pool.ref_count(p), golden.at(p).ref) << p;
        ASSERT_EQ(pool.is_cached(p), golden.at(p).content >= 0) << p;
        ASSERT_EQ(pool.term(p), golden.at(p).term) << p;
      }
      for (TenantId tenant = 0; tenant < 3; ++tenant) {
        ASSERT_EQ(pool.num_tenant_pages(tenant), golden.usage(tenant));
      }
      const std::vector<PageId> order = pool.free_pages();
      ASSERT_EQ(order.size(), golden.free_of({0, kPages}).size());
      if (!order.empty()) {
        ASSERT_EQ(order.front(), golden.pop({0, kPages}, kNoTenant));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(FreeOrders, PagePoolRetentionGoldenTest,
                         testing::Values(FreeOrder::kLru, FreeOrder::kUncachedFirst),
                         [](const auto& order) {
                           return order.param == FreeOrder::kLru ? "Lru" : "UncachedFirst";
                         });

// Pools on which nothing asks to be retained agree page by page, with lanes (which a quota of
// nobody makes, at some time) and without.
TEST(PagePoolRetentionLruTest, LanesAreExactLruAsLongAsAllTermsAreTheDefault) {
  constexpr PageId kPages = 40;
  for (unsigned seed = 0; seed < 20; ++seed) {
    Random random(seed);
    PagePool plain(kPages);
    PagePool laned(kPages);
    const auto first_use = random.below(400);
    std::vector<PageId> held;
    unsigned next_content = 0;
    for (int step = 0; step < 2000; ++step) {
      if (step == first_use) laned.set_tenant_quota(3, 0);
      std::vector<PageId> pages(random.below(std::size_t{5}));
      std::vector<PageId> same(pages.size());
      const bool done = plain.allocate(pages);
      ASSERT_EQ(laned.allocate(same), done);
      if (done) {
        ASSERT_EQ(pages, same);
        for (const PageId page : pages) {
          held.push_back(page);
          if (random.below(3) == 0) continue;
          plain.cache(page, hash_of(next_content), 0);
          laned.cache(page, hash_of(next_content++), 0);
        }
      }
      const auto hit = static_cast<PageId>(1 + random.below(kPages - 1));
      if (random.below(3) == 0 && plain.ref_count(hit) == 0) {
        plain.hold(std::span(&hit, 1));
        laned.hold(std::span(&hit, 1), RetentionTerm{});
        held.push_back(hit);
      }
      while (!held.empty() && random.below(3) > 0) {
        std::swap(held[random.below(held.size())], held.back());
        const PageId page = held.back();
        held.pop_back();
        plain.free(std::span(&page, 1));
        laned.free(std::span(&page, 1));
      }
      ASSERT_EQ(laned.free_pages(), plain.free_pages());
      ASSERT_EQ(laned.num_evictions(), plain.num_evictions());
      ASSERT_NO_THROW(laned.check_invariants());
    }
  }
}

}  // namespace
}  // namespace pagedkv
