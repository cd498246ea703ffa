#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "pagedkv/types.h"

namespace pagedkv {

/// How often values fell between bounds.
struct Histogram {
  std::vector<std::int64_t> bounds;  ///< Rising; the last bucket has none.
  std::vector<std::int64_t> counts;  ///< Of values `<= bounds[i]` and more than the bound before.
  std::int64_t sum = 0;              ///< Of all values.

  void add(std::int64_t value);
};

/// How long pages keep their content, and how often it is used, in the caller's unit of time. The
/// three measures, and sampling them, are those of vLLM's `KVCacheMetricsCollector`.
struct ResidencyStats {
  double sample_rate = 0;  ///< Share of the pages that is watched.
  Histogram lifetime;      ///< From when a page was handed out to when its content was evicted.
  Histogram idle;          ///< From the last use of an evicted page to its eviction.
  Histogram reuse_gap;     ///< From one use to the next; that it was handed out is the first.
};

/// Measures `ResidencyStats`.
///
/// Of the pages that are handed out, a share is watched until each is handed out again: so what it
/// costs depends on the share. Which ones depends on nothing but the calls before. Not
/// thread-safe.
class PageResidency {
 public:
  /// Throws `std::invalid_argument` unless `0 < sample_rate <= 1`, and for bounds that are none,
  /// negative or do not rise.
  PageResidency(double sample_rate, const std::vector<std::int64_t>& bounds);

  /// `page` has left its old content, if `had_content`, for one that is to come.
  void handed_out(PageId page, bool had_content, std::int64_t now);

  /// Somebody found `page` by its content, or goes on from it.
  void used(PageId page, std::int64_t now);

  /// All content was forgotten at once: the samples are no use.
  void cleared() { samples_.clear(); }

  const ResidencyStats& stats() const { return stats_; }

 private:
  struct Sample {
    std::int64_t handed_out;
    std::int64_t last_used;
  };

  bool draws();

  ResidencyStats stats_;
  std::uint64_t num_drawn_ = 0;
  std::unordered_map<PageId, Sample> samples_;
};

}  // namespace pagedkv
