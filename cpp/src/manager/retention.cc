#include "pagedkv/manager/retention.h"

#include <algorithm>
#include <utility>

#include "pagedkv/error.h"

namespace pagedkv {

Retention::Retention(const RetentionTerm& term, std::vector<RetentionRange> ranges,
                     const std::optional<RetentionTerm>& decoded)
    : term_(checked_term("Retention", term)),
      decoded_(checked_term("Retention", decoded.value_or(term))),
      ranges_(std::move(ranges)) {
  decoded_.tenant = term_.tenant;
  for (RetentionRange& range : ranges_) {
    if (range.begin < 0 || range.end <= range.begin) {
      throw_value_error("Retention", "a range must have 0 <= begin < end, got [", range.begin, ", ",
                        range.end, ")");
    }
    range.ttl = checked_term("Retention", {range.priority, range.ttl, term_.tenant}).ttl;
  }
  std::ranges::stable_sort(ranges_, {}, &RetentionRange::begin);
}

RetentionTerm Retention::term_of(std::int32_t begin, std::int32_t end,
                                 std::int32_t num_prompt_tokens) const {
  std::optional<RetentionTerm> strongest;
  const auto also = [&](const RetentionTerm& term) {
    if (!strongest || term.is_stronger_than(*strongest)) strongest = term;
  };
  const std::int32_t prompt_end = std::max(std::min(end, num_prompt_tokens), begin);
  std::int32_t covered = begin;  // tokens of the prompt up to here are in a range
  for (const RetentionRange& range : ranges_) {
    if (std::max(range.begin, begin) >= std::min(range.end, prompt_end)) continue;
    also({range.priority, range.ttl, term_.tenant});
    if (range.begin <= covered) covered = std::max(covered, range.end);
  }
  if (covered < prompt_end) also(term_);
  if (end > num_prompt_tokens) also(decoded_);
  return *strongest;
}

}  // namespace pagedkv
