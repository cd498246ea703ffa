#include "pagedkv/pool/page.h"

#include <gtest/gtest.h>

namespace pagedkv {
namespace {

TEST(PageTest, StampAndGroupShareAWordAndDoNotMeet) {
  constexpr std::int64_t kLast = (std::int64_t{1} << 47) - 1;
  Page page;
  EXPECT_EQ(page.freed_at(), 0);
  EXPECT_EQ(page.group(), kNoGroup);
  for (const std::int64_t stamp :
       {std::int64_t{0}, std::int64_t{1}, std::int64_t{-1}, kLast, -kLast}) {
    for (const GroupId group : {kNoGroup, 0, 1, 255, 256, Page::kMaxGroups - 1}) {
      page.set_freed_at(stamp);
      page.set_group(group);
      EXPECT_EQ(page.freed_at(), stamp);
      EXPECT_EQ(page.group(), group);
      EXPECT_EQ(page.is_cached(), group != kNoGroup);
      page.set_freed_at(7);
      EXPECT_EQ(page.group(), group);
    }
  }
}

}  // namespace
}  // namespace pagedkv
