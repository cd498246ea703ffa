#include "pagedkv/use_flag.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pagedkv {
namespace {

TEST(UseFlagTest, IsSetWhileTheUseLives) {
  UseFlag flag;
  EXPECT_FALSE(flag.in_use());
  {
    const ExclusiveUse use(flag, "Thing.work", "thing");
    EXPECT_TRUE(flag.in_use());
  }
  EXPECT_FALSE(flag.in_use());
}

TEST(UseFlagTest, RefusesASecondUseAndKeepsTheFirst) {
  UseFlag flag;
  const ExclusiveUse use(flag, "Thing.work", "thing");
  EXPECT_THAT([&] { ExclusiveUse(flag, "Thing.rest", "thing"); },
              testing::ThrowsMessage<std::runtime_error>(
                  "[Thing.rest] the thing is in use by another thread"));
  EXPECT_TRUE(flag.in_use());
}

}  // namespace
}  // namespace pagedkv
