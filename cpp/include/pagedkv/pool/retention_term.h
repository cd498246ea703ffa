#pragma once

#include <compare>
#include <cstdint>
#include <limits>

namespace pagedkv {

/// Who pages are counted for: a number of the caller's, >= 0.
using TenantId = std::int64_t;

/// Stands for "nobody" wherever a `TenantId` is expected: such pages have no quota.
inline constexpr TenantId kNoTenant = -1;

/// How a page is kept while nobody holds it. Priorities and time limits are as in TensorRT-LLM's
/// `KvCacheRetentionConfig`: of free pages, those of the lowest priority go first, and a time limit
/// counts from when the page was freed.
struct RetentionTerm {
  static constexpr std::int32_t kMaxPriority = 100;
  static constexpr std::int32_t kDefaultPriority = 50;
  static constexpr std::int64_t kForever = std::numeric_limits<std::int64_t>::max();

  /// 0 to `kMaxPriority`.
  std::int32_t priority = kDefaultPriority;
  /// After so long, >= 1 in the caller's unit, the priority is the default again.
  std::int64_t ttl = kForever;
  TenantId tenant = kNoTenant;

  auto operator<=>(const RetentionTerm&) const = default;

  /// Whether a page that is to be kept on both terms is kept on this one: of two, the higher
  /// priority wins, and of two with one priority the longer time.
  bool is_stronger_than(const RetentionTerm& other) const {
    return priority != other.priority ? priority > other.priority : ttl > other.ttl;
  }
};

/// The same term in its only form: a limit on the default priority limits nothing.
///
/// Throws `std::invalid_argument` "[operation] ..." for a priority that is not in
/// `[0, kMaxPriority]`, for `ttl < 1`, and for a negative tenant other than `kNoTenant`.
RetentionTerm checked_term(const char* operation, RetentionTerm term);

}  // namespace pagedkv
