#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <list>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "groups.h"
#include "pagedkv/manager/cache_manager.h"

namespace pagedkv {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;

CacheGroupSpec state_group(MambaCacheMode mode) {
  return {MambaSpec(kPageSize, {{{2, 2}, DType("float32")}}, {}, mode), std::nullopt};
}

class ForkTest : public testing::Test {
 protected:
  Request& make(const char* name, std::vector<TokenId> tokens, ExtraKeys keys = {}) {
    return requests_.emplace_back(name, std::move(tokens), std::move(keys));
  }

  Request& compute(CacheManager& manager, std::vector<TokenId> tokens) {
    Request& request = make("parent", std::move(tokens));
    EXPECT_TRUE(manager.allocate(request, request.num_tokens()));
    manager.commit(request, request.num_tokens());
    return request;
  }

  std::vector<PageId> pages(const CacheManager& manager, const Request& request,
                            GroupId group = 0) {
    const auto ids = manager.page_ids(request, group);
    return {ids.begin(), ids.end()};
  }

  std::vector<PageCopies> copies_;
  std::list<Request> requests_;
};

TEST_F(ForkTest, SharesFullPagesAndCopiesTheLast) {
  CacheManager manager(16, std::vector{full_group()}, 64);
  Request& parent = compute(manager, tokens_of(10));
  Request& child = make("child", tokens_of(10));
  ASSERT_TRUE(manager.fork(parent, child, copies_));
  manager.check_invariants();
  EXPECT_THAT(pages(manager, parent), ElementsAre(1, 2, 3));
  EXPECT_THAT(pages(manager, child), ElementsAre(1, 2, 4));
  EXPECT_THAT(copies_, ElementsAre(ElementsAre(PageCopy{3, 4})));
  EXPECT_EQ(child.num_computed_tokens(), 10);
  EXPECT_EQ(manager.num_allocated_tokens(child), 10);

  for (Request* request : {&parent, &child}) {
    request->append(request == &parent ? 1 : 2);
    request->append(7);
    ASSERT_TRUE(manager.allocate(*request, 2));
    manager.commit(*request, 12);
  }
  manager.check_invariants();
  EXPECT_EQ(manager.pool().num_cached_keys(), 4) << "two shared, one of each";
  manager.free(parent);
  EXPECT_THAT(pages(manager, child), ElementsAre(1, 2, 4));
  manager.check_invariants();
  manager.free(child);
  EXPECT_EQ(manager.pool().num_free_pages(), 15);
}

TEST_F(ForkTest, CopiesNothingAtTheEndOfAPage) {
  CacheManager manager(16, std::vector{full_group()}, 64);
  Request& parent = compute(manager, tokens_of(8));
  parent.append(std::vector<TokenId>{1, 2, 3});
  ASSERT_TRUE(manager.allocate(parent, 3));  // room that is not the child's
  Request& child = make("child", tokens_of(8));
  ASSERT_TRUE(manager.fork(parent, child, copies_));
  EXPECT_THAT(copies_, ElementsAre(IsEmpty()));
  EXPECT_THAT(pages(manager, child), ElementsAre(1, 2));
  manager.check_invariants();
}

TEST_F(ForkTest, EachAttentionTypeCopiesWhatItWritesAgain) {
  const std::vector groups = {full_group(), window_group(5), state_group(MambaCacheMode::kNone),
                              state_group(MambaCacheMode::kAlign)};
  CacheManager manager(40, groups, 64);
  Request& parent = compute(manager, tokens_of(10));
  parent.append(1);
  ASSERT_TRUE(manager.allocate(parent, 1));  // the window and the checkpoints give pages back
  Request& child = make("child", tokens_of(11));
  ASSERT_TRUE(manager.fork(parent, child, copies_));
  manager.check_invariants();
  for (const GroupId group : {0, 1, 3}) {
    SCOPED_TRACE(group);
    const auto of_parent = pages(manager, parent, group);
    const auto of_child = pages(manager, child, group);
    ASSERT_EQ(of_child.size(), 3U);
    EXPECT_EQ(of_child[0], of_parent[0]);
    EXPECT_EQ(of_child[1], of_parent[1]);
    EXPECT_THAT(copies_[static_cast<std::size_t>(group)],
                ElementsAre(PageCopy{of_parent[2], of_child[2]}));
  }
  EXPECT_EQ(pages(manager, child, 1)[0], kNullPage) << "left by the window";
  EXPECT_THAT(copies_[2],
              ElementsAre(PageCopy{pages(manager, parent, 2)[0], pages(manager, child, 2)[0]}));
}

TEST_F(ForkTest, DoesNothingWithoutRoom) {
  CacheManager manager(4, std::vector{full_group()}, 64);
  Request& parent = compute(manager, tokens_of(10));
  Request& child = make("child", tokens_of(10));
  EXPECT_FALSE(manager.fork(parent, child, copies_));
  EXPECT_FALSE(child.is_allocated());
  manager.check_invariants();
}

TEST_F(ForkTest, StaysInTheShardOfTheParent) {
  CacheManager manager(16, std::vector{full_group()}, 64, {.num_shards = 2});
  Request& parent = make("parent", tokens_of(10));
  ASSERT_TRUE(manager.allocate(parent, {.num_new_tokens = 10, .shard = 1}));
  manager.commit(parent, 10);
  Request& child = make("child", tokens_of(10));
  ASSERT_TRUE(manager.fork(parent, child, copies_));
  EXPECT_GE(pages(manager, child)[2], 8);
}

TEST_F(ForkTest, SharesPagesThatNobodyCanFindYet) {
  CacheManager manager(16, std::vector{full_group()}, 64);
  Request& parent = make("parent", tokens_of(10));
  ASSERT_TRUE(manager.allocate(parent, 10));
  manager.set_num_computed_tokens(parent, 10);
  Request& child = make("child", tokens_of(10));
  ASSERT_TRUE(manager.fork(parent, child, copies_));
  EXPECT_EQ(manager.pool().num_cached_pages(), 0);
  manager.commit(child, 10);
  manager.check_invariants();
  manager.commit(parent, 10);
  manager.check_invariants();
  EXPECT_EQ(manager.pool().num_cached_pages(), 2);
}

TEST_F(ForkTest, RefusesWhatIsNoFork) {
  CacheManager manager(16, std::vector{full_group()}, 64);
  CacheManager other(16, std::vector{full_group()}, 64);
  Request& parent = compute(manager, tokens_of(10));
  const auto expect_refusal = [&](Request& from, Request& child, const char* text) {
    EXPECT_THAT([&] { (void)manager.fork(from, child, copies_); },
                ThrowsMessage<std::invalid_argument>(HasSubstr(text)));
    manager.check_invariants();
    EXPECT_EQ(manager.num_requests(), 1);
  };
  Request& child = make("child", tokens_of(10));
  expect_refusal(make("fresh", tokens_of(10)), child, "request 'fresh' holds no pages");
  expect_refusal(compute(other, tokens_of(10)), child, "holds pages of another manager");
  expect_refusal(parent, parent, "request 'parent' holds pages already");
  expect_refusal(parent, make("short", tokens_of(9)),
                 "request 'short' must begin with the 10 computed tokens of request 'parent'");
  expect_refusal(parent, make("different", tokens_of(10, 5)), "must begin with");
  expect_refusal(parent, make("salted", tokens_of(10), ExtraKeys({}, {}, "salt")),
                 "request 'salted' must have the extra keys of request 'parent'");
  Request encoder("encoder", tokens_of(10), {}, 3);
  expect_refusal(parent, encoder, "must have as many encoder tokens as request 'parent', 0, has 3");
}

TEST_F(ForkTest, RefusesAParentWithoutComputedTokens) {
  CacheManager manager(16, std::vector{full_group()}, 64);
  Request& parent = make("parent", tokens_of(10));
  ASSERT_TRUE(manager.allocate(parent, 10));
  EXPECT_THAT([&] { (void)manager.fork(parent, make("child", tokens_of(10)), copies_); },
              ThrowsMessage<std::invalid_argument>(
                  HasSubstr("request 'parent' has no computed tokens to go on from")));
}

TEST_F(ForkTest, KeepsTheTokensThatBothRead) {
  CacheManager manager(16, std::vector{full_group()}, 64);
  Request& parent = compute(manager, tokens_of(10));
  ASSERT_TRUE(manager.fork(parent, make("child", tokens_of(10)), copies_));
  manager.set_num_computed_tokens(parent, 3);
  EXPECT_THROW(parent.truncate(5), std::invalid_argument);
}

// What is written to a page lands in no other request's: the golden model of copy-on-write.
TEST_F(ForkTest, RandomTreesReadTheirOwnTokens) {
  std::mt19937 random(1);
  for (int round = 0; round < 30; ++round) {
    const std::vector groups = {full_group(), window_group(1 + static_cast<int>(random() % 9))};
    CacheManager manager(40, groups, 64, {.deduplicate = random() % 2 == 0});
    std::vector<std::vector<TokenId>> memory(40, std::vector<TokenId>(kPageSize, -1));
    std::list<Request> live;
    const auto run = [&](Request& request, std::int32_t count) {
      if (!manager.allocate(request, count)) return;
      const std::int32_t begin = request.num_computed_tokens();
      for (GroupId group = 0; group < manager.num_groups(); ++group) {
        for (std::int32_t t = begin; t < begin + count; ++t) {
          const PageId page = manager.page_ids(request, group)[static_cast<std::size_t>(t / 4)];
          memory[static_cast<std::size_t>(page)][static_cast<std::size_t>(t % 4)] =
              request.tokens()[static_cast<std::size_t>(t)];
        }
      }
      manager.commit(request, begin + count);
    };
    const auto any = [&] {
      return std::next(live.begin(), static_cast<std::ptrdiff_t>(random() % live.size()));
    };
    for (int step = 0; step < 200; ++step) {
      const auto action = live.empty() ? 0 : random() % 6;
      if (action == 0 && live.size() < 8) {
        const std::size_t length = 1 + random() % 12;
        Request& request = live.emplace_back("r", std::vector<TokenId>(length, 0));
        run(request, 1 + static_cast<std::int32_t>(random() % length));
        if (!request.is_allocated()) live.pop_back();
      } else if (action == 1 && live.size() < 8) {
        Request& parent = *any();
        Request& child = live.emplace_back(
            "c", std::vector<TokenId>(parent.tokens().begin(), parent.tokens().end()));
        if (manager.fork(parent, child, copies_)) {
          for (const PageCopies& group : copies_) {
            for (const auto& [source, target] : group) {
              memory[static_cast<std::size_t>(target)] = memory[static_cast<std::size_t>(source)];
            }
          }
        } else {
          live.pop_back();
        }
      } else if (action == 2 && !live.empty()) {
        const auto gone = any();
        manager.free(*gone);
        live.erase(gone);
      } else if (!live.empty()) {
        Request& request = *any();
        if (request.num_tokens() == request.num_computed_tokens() && request.num_tokens() < 60) {
          request.append(static_cast<TokenId>(random() % 2));
        }
        if (const auto left = request.num_tokens() - request.num_computed_tokens(); left > 0) {
          run(request, 1 + static_cast<std::int32_t>(random() % static_cast<unsigned>(left)));
        }
      }
      manager.check_invariants();
      for (const Request& request : live) {
        for (GroupId group = 0; group < manager.num_groups(); ++group) {
          const auto row = manager.page_ids(request, group);
          for (std::int32_t t = 0; t < request.num_computed_tokens(); ++t) {
            const PageId page = row[static_cast<std::size_t>(t / 4)];
            if (page == kNullPage) continue;
            ASSERT_EQ(memory[static_cast<std::size_t>(page)][static_cast<std::size_t>(t % 4)],
                      request.tokens()[static_cast<std::size_t>(t)]);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace pagedkv
