#include "pagedkv/watch/page_residency.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "pagedkv/error.h"

namespace pagedkv {
namespace {

Histogram checked_histogram(const std::vector<std::int64_t>& bounds) {
  if (bounds.empty() || bounds.front() < 0 ||
      std::ranges::adjacent_find(bounds, std::ranges::greater_equal()) != bounds.end()) {
    throw_value_error("PageResidency", "bounds must be at least one, from 0 on, and rise");
  }
  return {bounds, std::vector<std::int64_t>(bounds.size() + 1, 0)};
}

double checked_rate(double sample_rate) {
  if (!(sample_rate > 0 && sample_rate <= 1)) {
    throw_value_error("PageResidency", "sample_rate must be in (0, 1], got ", sample_rate);
  }
  return sample_rate;
}

// The finalizer of SplitMix64 (Steele, Lea and Flood), over a plain counter.
std::uint64_t mixed(std::uint64_t number) {
  number *= 0x9e3779b97f4a7c15U;
  number = (number ^ (number >> 30)) * 0xbf58476d1ce4e5b9U;
  number = (number ^ (number >> 27)) * 0x94d049bb133111ebU;
  return number ^ (number >> 31);
}

}  // namespace

void Histogram::add(std::int64_t value) {
  const auto bucket = std::ranges::lower_bound(bounds, value) - bounds.begin();
  ++counts[static_cast<std::size_t>(bucket)];
  sum += value;
}

PageResidency::PageResidency(double sample_rate, const std::vector<std::int64_t>& bounds)
    : stats_{.sample_rate = checked_rate(sample_rate),
             .lifetime = checked_histogram(bounds),
             .idle = checked_histogram(bounds),
             .reuse_gap = checked_histogram(bounds)} {}

bool PageResidency::draws() {
  constexpr int kBits = 53;  // what a double holds
  const std::uint64_t drawn = mixed(++num_drawn_) >> (64 - kBits);
  return static_cast<double>(drawn) < std::ldexp(stats_.sample_rate, kBits);
}

void PageResidency::handed_out(PageId page, bool had_content, std::int64_t now) {
  if (const auto old = samples_.find(page); old != samples_.end()) {
    if (had_content) {
      stats_.lifetime.add(now - old->second.handed_out);
      stats_.idle.add(now - old->second.last_used);
    }
    samples_.erase(old);
  }
  if (draws()) samples_.emplace(page, Sample{now, now});
}

void PageResidency::used(PageId page, std::int64_t now) {
  const auto sample = samples_.find(page);
  if (sample == samples_.end()) return;
  stats_.reuse_gap.add(now - sample->second.last_used);
  sample->second.last_used = now;
}

}  // namespace pagedkv
