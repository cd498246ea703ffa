#include "pagedkv/manager/page_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <string>
#include <vector>

#include "groups.h"
#include "pagedkv/manager/cache_manager.h"
#include "random.h"

namespace pagedkv {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::IsEmpty;

TEST(PageMapTest, OfAnEmptyManagerNamesNobody) {
  const std::vector groups{full_group()};
  const CacheManager manager(4, groups, 64);
  const PageMap map = manager.page_map();
  EXPECT_THAT(map.ref_counts, ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(map.num_pins, ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(map.is_cached, ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(map.groups, Each(kNoGroup));
  EXPECT_THAT(map.request_ids, IsEmpty());
  EXPECT_THAT(map.held_starts, ElementsAre(0));
  EXPECT_THAT(map.held_pages, IsEmpty());
}

TEST(PageMapTest, TellsHeldSharedCachedAndPinnedPagesApart) {
  const std::vector groups{full_group()};
  CacheManager manager(8, groups, 64);
  Request first("first", tokens_of(10));
  Request second("second", tokens_of(9));
  ASSERT_TRUE(manager.allocate(first, 10));
  manager.commit(first, 10);
  ASSERT_TRUE(manager.allocate(second, 1, manager.match(second)));
  PageMap map = manager.page_map();
  EXPECT_THAT(map.ref_counts, ElementsAre(0, 2, 2, 1, 1, 0, 0, 0));
  EXPECT_THAT(map.is_cached, ElementsAre(0, 1, 1, 0, 0, 0, 0, 0));
  EXPECT_THAT(map.groups, ElementsAre(-1, 0, 0, 0, 0, -1, -1, -1));
  EXPECT_THAT(map.request_ids, ElementsAre("first", "second"));
  EXPECT_THAT(map.held_starts, ElementsAre(0, 3, 6));
  EXPECT_THAT(map.held_pages, ElementsAre(1, 2, 3, 1, 2, 4));

  manager.pin(second);
  manager.free(first);
  map = manager.page_map();
  EXPECT_THAT(map.ref_counts, ElementsAre(0, 2, 2, 0, 1, 0, 0, 0));
  EXPECT_THAT(map.num_pins, ElementsAre(0, 1, 1, 0, 0, 0, 0, 0));
  EXPECT_THAT(map.groups, ElementsAre(-1, 0, 0, -1, 0, -1, -1, -1));
  EXPECT_THAT(map.request_ids, ElementsAre("second"));
}

TEST(PageMapTest, CountsTheHoldersOfEveryPage) {
  for (unsigned seed = 0; seed < 5; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    const std::vector groups{full_group(), window_group(8)};
    CacheManager manager(40, groups, 64);
    std::list<Request> requests;
    for (int step = 0; step < 200; ++step) {
      if (requests.size() < 6 && random.below(2) == 0) {
        Request& request = requests.emplace_back("r" + std::to_string(step),
                                                 tokens_of(1 + random.below(std::size_t{30}), 100));
        const std::int32_t cached = manager.match(request);
        if (!manager.allocate(request, request.num_tokens() - cached, cached)) {
          requests.pop_back();
        } else {
          manager.commit(request, request.num_tokens());
          if (random.below(8) == 0 && request.num_tokens() >= kPageSize) manager.pin(request);
        }
      } else if (!requests.empty()) {
        manager.free(requests.front());
        requests.pop_front();
      }
      const PageMap map = manager.page_map();
      std::map<PageId, std::int32_t> holders;
      for (const PageId page : map.held_pages) ++holders[page];
      for (PageId page = 0; page < 40; ++page) {
        const auto i = static_cast<std::size_t>(page);
        EXPECT_EQ(map.ref_counts[i], manager.pool().ref_count(page));
        EXPECT_EQ(map.num_pins[i], manager.pins().count(page));
        EXPECT_EQ(map.is_cached[i] == 1, manager.pool().is_cached(page));
        EXPECT_EQ(holders[page], map.ref_counts[i] - map.num_pins[i]);
        EXPECT_EQ(map.groups[i] != kNoGroup, map.is_cached[i] == 1 || holders[page] > 0);
      }
      std::size_t i = 0;
      for (const Request& request : requests) {
        for (std::size_t place = 0; place < map.request_ids.size(); ++place) {
          if (map.request_ids[place] != request.request_id()) continue;
          std::vector<PageId> pages;
          for (GroupId group = 0; group < 2; ++group) {
            for (const PageId page : manager.page_ids(request, group)) {
              if (page == kNullPage) continue;
              pages.push_back(page);
              EXPECT_EQ(map.groups[static_cast<std::size_t>(page)], group);
            }
          }
          const auto begin = map.held_pages.begin() + map.held_starts[place];
          const auto end = map.held_pages.begin() + map.held_starts[place + 1];
          EXPECT_EQ(std::vector<PageId>(begin, end), pages);
          ++i;
        }
      }
      EXPECT_EQ(i, requests.size());
      EXPECT_EQ(map.request_ids.size(), requests.size());
    }
    for (Request& request : requests) manager.free(request);
    manager.check_invariants();
  }
}

}  // namespace
}  // namespace pagedkv
