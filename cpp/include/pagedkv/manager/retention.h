#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "pagedkv/pool/retention_term.h"

namespace pagedkv {

/// Tokens `[begin, end)` of a prompt, and how long their pages are kept.
struct RetentionRange {
  static constexpr std::int32_t kToTheEnd = std::numeric_limits<std::int32_t>::max();

  std::int32_t begin = 0;
  std::int32_t end = kToTheEnd;
  std::int32_t priority = RetentionTerm::kDefaultPriority;
  std::int64_t ttl = RetentionTerm::kForever;
};

/// How a request wants its pages to be kept once nobody holds them: a term for all of them, others
/// for ranges of the prompt, and one for what is decoded. The idea and its parts are those of
/// TensorRT-LLM's `KvCacheRetentionConfig`; tenants are ours.
class Retention {
 public:
  /// `term` is for the tokens of the prompt in no range, and for decoded ones if there is no
  /// `decoded`, of which the tenant counts for nothing. Ranges may overlap.
  ///
  /// Throws `std::invalid_argument` for terms that are out of range and for `begin < 0` or
  /// `end <= begin`.
  explicit Retention(const RetentionTerm& term, std::vector<RetentionRange> ranges = {},
                     const std::optional<RetentionTerm>& decoded = std::nullopt);

  const RetentionTerm& term() const { return term_; }
  std::span<const RetentionRange> ranges() const { return ranges_; }

  /// The term of decoded tokens.
  const RetentionTerm& decoded() const { return decoded_; }

  /// The term of a page of tokens `[begin, end)`, of which those before `num_prompt_tokens` are the
  /// prompt's: the strongest of all that its tokens have. O(ranges).
  RetentionTerm term_of(std::int32_t begin, std::int32_t end, std::int32_t num_prompt_tokens) const;

 private:
  RetentionTerm term_;
  RetentionTerm decoded_;
  std::vector<RetentionRange> ranges_;  // by rising begin
};

}  // namespace pagedkv
