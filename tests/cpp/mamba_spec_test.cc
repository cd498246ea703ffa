#include "pagedkv/spec/mamba_spec.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "spec_layouts.h"

namespace pagedkv {
namespace {

static_assert(max_mamba_pages(MambaCacheMode::kNone, 0) == 1);
static_assert(max_mamba_pages(MambaCacheMode::kNone, 3) == 4);
static_assert(max_mamba_pages(MambaCacheMode::kAlign, 0) == 2);
static_assert(max_mamba_pages(MambaCacheMode::kAlign, 3) == 5);

const std::vector<StateArray> kStates = {{{16, 64}, DType("float16")}, {{32}, DType("float16")}};

TEST(MambaSpecTest, APageHoldsOneState) {
  const MambaSpec spec(8, kStates);
  EXPECT_EQ(spec.page_size_bytes(), (16 * 64 + 32) * 2);
  EXPECT_EQ(spec.type_id(), "mamba_((16, 64), (32,))_float16");
  EXPECT_EQ(spec.kind(), "mamba");
  EXPECT_EQ(spec.max_memory_usage_bytes({.max_model_len = 1'000'000}), (16 * 64 + 32) * 2);
}

TEST(MambaSpecTest, EachArrayHasItsOwnDType) {
  const MambaSpec spec(8, {{{4}, DType("bfloat16")}, {{2, 2}, DType("float32")}});
  EXPECT_EQ(spec.page_size_bytes(), 4 * 2 + 4 * 4);
  EXPECT_EQ(spec.type_id(), "mamba_((4,), (2, 2))_(bfloat16, float32)");
}

TEST(MambaSpecTest, AlignedStatesAndDraftsTakePages) {
  const MambaSpec spec(8, kStates, 4096, MambaCacheMode::kAlign, 2);
  EXPECT_EQ(spec.max_memory_usage_bytes({}), 4 * 4096);
  EXPECT_EQ(spec.type_id(), "mamba_((16, 64), (32,))_float16_align_2");
}

TEST(MambaSpecTest, NamesOfModesRoundTrip) {
  for (const char* name : {"none", "align"}) EXPECT_EQ(to_string(mamba_cache_mode(name)), name);
  expect_refusal([] { mamba_cache_mode("all"); },
                 "[MambaSpec] cache_mode must be 'none' or 'align', got 'all'");
}

TEST(MambaSpecTest, MergeWantsEqualPages) {
  const MambaSpec spec(8, kStates);
  EXPECT_EQ(MambaSpec::merge(std::vector{spec, spec}), spec);
  expect_refusal([&] { MambaSpec::merge(std::vector{spec, MambaSpec(4, kStates)}); },
                 "layers of a group must have one page_size, got 8 and 4");
  expect_refusal([&] { MambaSpec::merge(std::vector{spec, MambaSpec(8, kStates, 4096)}); },
                 "layers of a group must have one page_size_bytes, got 2112 and 4096");
}

TEST(MambaSpecTest, NewPageSizeKeepsTheBytes) {
  const MambaSpec spec = MambaSpec(8, kStates, 4096).copy_with_new_page_size(16);
  EXPECT_EQ(spec.page_size(), 16);
  EXPECT_EQ(spec.page_size_bytes(), 4096);
}

TEST(MambaSpecTest, RejectsWhatIsNoState) {
  const auto make = [](std::vector<StateArray> states) {
    return [states = std::move(states)] { MambaSpec(8, states); };
  };
  expect_refusal(make({}), "[MambaSpec] shapes must not be empty");
  expect_refusal(make({{{4, 0}, DType("int8")}}), "a dimension of shapes must be >= 1, got 0");
  expect_refusal(make({{{3}, DType("int4")}}), "a state must be whole bytes, got 12 bits");
  expect_refusal([] { MambaSpec(0, kStates); }, "[MambaSpec] page_size must be >= 1, got 0");
  expect_refusal([] { MambaSpec(8, kStates, 5); },
                 "[MambaSpec] page_size_padded must be >= 2112, the bytes of a page, got 5");
  expect_refusal([] { MambaSpec(8, kStates, {}, MambaCacheMode::kNone, -1); },
                 "[MambaSpec] num_speculative_pages must be >= 0, got -1");
}

}  // namespace
}  // namespace pagedkv
