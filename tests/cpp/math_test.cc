#include "pagedkv/math.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

namespace pagedkv {
namespace {

constexpr std::int32_t kMax = std::numeric_limits<std::int32_t>::max();

static_assert(ceil_div(0, 16) == 0);
static_assert(ceil_div(1, 16) == 1);
static_assert(ceil_div(16, 16) == 1);
static_assert(ceil_div(17, 16) == 2);
static_assert(ceil_div(kMax, 2) == 1 << 30, "value + divisor - 1 would overflow");
static_assert(ceil_div(kMax, kMax) == 1);

static_assert(round_down(0, 16) == 0);
static_assert(round_down(15, 16) == 0);
static_assert(round_down(33, 16) == 32);

static_assert(checked_mul(3, 5) == 15);
static_assert(checked_mul(kMax, 0) == 0);
static_assert(checked_mul(kMax, 1) == kMax);
static_assert(checked_mul(kMax / 2 + 1, 2) == std::nullopt);

static_assert(saturating_add(3, 5) == 8);
static_assert(saturating_add(kMax, 0) == kMax);
static_assert(saturating_add(kMax - 1, 2) == kMax);

static_assert(Divisor(16).quotient(0) == 0);
static_assert(Divisor(16).quotient(15) == 0);
static_assert(Divisor(16).quotient(16) == 1);
static_assert(Divisor(1).quotient(kMax) == kMax);
static_assert(Divisor(1 << 30).quotient(kMax) == 1);
static_assert(Divisor(12).quotient(35) == 2);
static_assert(Divisor(kMax).quotient(kMax) == 1);

// The claims above hold at compile time; this makes the file show up among the run tests.
TEST(MathTest, HoldsAtCompileTime) { EXPECT_EQ(ceil_div(17, 16), 2); }

}  // namespace
}  // namespace pagedkv
