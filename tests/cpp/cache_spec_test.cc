#include "pagedkv/spec/cache_spec.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace pagedkv {
namespace {

FullAttentionSpec spec_of(std::int32_t page_size, std::int32_t num_kv_heads, std::int32_t head_size,
                          const char* dtype, bool use_mla = false) {
  return FullAttentionSpec(page_size, num_kv_heads, head_size, DType(dtype), use_mla);
}

TEST(DTypeTest, KnowsItsBits) {
  EXPECT_EQ(DType("float32").bits(), 32);
  EXPECT_EQ(DType("bfloat16").bits(), 16);
  EXPECT_EQ(DType("float8_e4m3fn").bits(), 8);
  EXPECT_EQ(DType("int4").bits(), 4);
}

TEST(DTypeTest, RejectsUnknownNames) {
  EXPECT_THROW(DType("bf16"), std::invalid_argument);
  EXPECT_THROW(DType(""), std::invalid_argument);
}

TEST(CacheSpecTest, PageHoldsKeysAndValues) {
  EXPECT_EQ(spec_of(16, 3, 64, "float32").page_size_bytes(), 16 * 3 * 64 * 4 * 2);
  EXPECT_EQ(spec_of(16, 3, 64, "bfloat16").page_size_bytes(), 16 * 3 * 64 * 2 * 2);
  EXPECT_EQ(spec_of(16, 1, 3, "int4").page_size_bytes(), 16 * 3);
}

TEST(CacheSpecTest, LatentPageHoldsOneRowAToken) {
  EXPECT_EQ(spec_of(16, 1, 576, "bfloat16", true).page_size_bytes(), 16 * 576 * 2);
}

TEST(CacheSpecTest, RejectsSizesBelowOne) {
  EXPECT_THROW(spec_of(0, 3, 64, "float32"), std::invalid_argument);
  EXPECT_THROW(spec_of(16, -1, 64, "float32"), std::invalid_argument);
  EXPECT_THROW(spec_of(16, 3, 0, "float32"), std::invalid_argument);
}

TEST(CacheSpecTest, RejectsPagesThatAreNotWholeBytes) {
  EXPECT_THROW(spec_of(1, 1, 3, "int4", true), std::invalid_argument);
}

TEST(CacheSpecTest, RejectsPagesTooLargeToCount) {
  constexpr std::int32_t kHuge = 2'000'000'000;
  EXPECT_THROW(spec_of(kHuge, kHuge, kHuge, "float32"), std::invalid_argument);
}

}  // namespace
}  // namespace pagedkv
