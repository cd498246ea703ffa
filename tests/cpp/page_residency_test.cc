#include "pagedkv/watch/page_residency.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <stdexcept>
#include <vector>

#include "random.h"

namespace pagedkv {
namespace {

using testing::ElementsAre;

TEST(HistogramTest, BoundsAreInTheBucketThatTheyEnd) {
  Histogram histogram{{0, 10, 20}, {0, 0, 0, 0}};
  for (const std::int64_t value : {0, 1, 10, 11, 20, 21, 100}) histogram.add(value);
  EXPECT_THAT(histogram.counts, ElementsAre(1, 2, 2, 2));
  EXPECT_EQ(histogram.sum, 163);
}

TEST(PageResidencyTest, RefusesWrongArguments) {
  const auto make = [](double rate, std::vector<std::int64_t> bounds) {
    const PageResidency residency(rate, bounds);
  };
  for (const double rate : {0.0, -1.0, 1.5, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THROW(make(rate, {1}), std::invalid_argument) << rate;
  }
  EXPECT_THROW(make(1, {}), std::invalid_argument);
  EXPECT_THROW(make(1, {-1, 1}), std::invalid_argument);
  EXPECT_THROW(make(1, {1, 1}), std::invalid_argument);
  make(1, {0});
}

TEST(PageResidencyTest, MeasuresAPageFromAllocationToEviction) {
  PageResidency residency(1, {5, 50});
  residency.handed_out(7, false, 10);
  residency.used(7, 13);
  residency.used(7, 43);
  residency.used(8, 43);  // not watched
  residency.handed_out(7, true, 110);
  const ResidencyStats& stats = residency.stats();
  EXPECT_THAT(stats.lifetime.counts, ElementsAre(0, 0, 1));
  EXPECT_EQ(stats.lifetime.sum, 100);
  EXPECT_EQ(stats.idle.sum, 67);
  EXPECT_THAT(stats.reuse_gap.counts, ElementsAre(1, 1, 0));
  EXPECT_EQ(stats.reuse_gap.sum, 33);

  residency.handed_out(7, false, 120);  // it never had content
  EXPECT_EQ(stats.lifetime.sum, 100);
  residency.cleared();
  residency.handed_out(7, true, 130);
  EXPECT_EQ(stats.lifetime.sum, 100);
}

// The naive model: notes on every page, of which a sample with rate 1 must give the same.
TEST(PageResidencyTest, AgreesWithNotesOnEveryPage) {
  Random random(1);
  PageResidency residency(1, {3, 30});
  std::map<PageId, std::vector<std::int64_t>> uses;
  std::vector<std::int64_t> lifetimes, idles, gaps;
  std::int64_t now = 0;
  for (int i = 0; i < 2000; ++i) {
    now += random.below(4);
    const PageId page = random.below(12);
    if (random.below(2) == 0) {
      residency.used(page, now);
      if (!uses.contains(page)) continue;
      gaps.push_back(now - uses[page].back());
      uses[page].push_back(now);
    } else {
      const bool had_content = random.below(3) > 0;
      residency.handed_out(page, had_content, now);
      if (uses.contains(page) && had_content) {
        lifetimes.push_back(now - uses[page].front());
        idles.push_back(now - uses[page].back());
      }
      uses[page] = {now};
    }
  }
  const auto expect_same = [](const Histogram& histogram, const std::vector<std::int64_t>& values) {
    Histogram expected{histogram.bounds, {0, 0, 0}};
    for (const std::int64_t value : values) {
      ++expected.counts[value <= 3 ? 0 : value <= 30 ? 1 : 2];
      expected.sum += value;
    }
    EXPECT_GT(values.size(), 100);
    EXPECT_EQ(histogram.counts, expected.counts);
    EXPECT_EQ(histogram.sum, expected.sum);
  };
  expect_same(residency.stats().lifetime, lifetimes);
  expect_same(residency.stats().idle, idles);
  expect_same(residency.stats().reuse_gap, gaps);
}

TEST(PageResidencyTest, WatchesTheShareOfPagesItWasAskedFor) {
  for (const double rate : {0.01, 0.25}) {
    PageResidency residency(rate, {1});
    constexpr int kNumPages = 40'000;
    for (PageId page = 0; page < kNumPages; ++page) residency.handed_out(page, false, 0);
    for (PageId page = 0; page < kNumPages; ++page) residency.used(page, 1);
    const double share = static_cast<double>(residency.stats().reuse_gap.sum) / kNumPages;
    EXPECT_NEAR(share, rate, rate / 5);
  }
}

}  // namespace
}  // namespace pagedkv
