#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "pagedkv/math.h"
#include "pagedkv/spec/attention_spec.h"

namespace pagedkv {

/// Pages that the `window - 1` tokens before a step and those of the step lie in at most.
///
/// One more than they fill: a window need not begin where a page does.
constexpr std::int64_t max_sliding_window_pages(std::int64_t window, std::int64_t page_size,
                                                const RequestLimits& limits) {
  const std::int64_t live = saturating_add(window - 1, limits.max_num_batched_tokens);
  return ceil_div(std::min(live, limits.max_model_len), page_size) + 1;
}

/// A layer whose attention sees the last `sliding_window` tokens, itself included.
///
/// A latent cache (`use_mla`) may slide too.
class SlidingWindowSpec final : public AttentionSpec {
 public:
  static constexpr std::string_view kName = "SlidingWindowSpec";

  /// Throws `std::invalid_argument` as `AttentionSpec` does, and unless `sliding_window >= 1`.
  SlidingWindowSpec(const AttentionLayout& layout, std::int32_t sliding_window);

  /// Tokens that attention sees: the token itself and those right before it.
  std::int32_t sliding_window() const { return sliding_window_; }

  /// "sliding_window_{sliding_window}_{page_size}_{page_size_bytes}"; a latent cache's begins with
  /// "sliding_window_mla_".
  std::string type_id() const override;
  std::string_view kind() const override {
    return use_mla() ? "sliding_window_mla" : "sliding_window";
  }

  /// `max_sliding_window_pages`.
  std::int64_t max_pages_per_request(const RequestLimits& limits) const override {
    return max_sliding_window_pages(sliding_window_, page_size(), limits);
  }

  /// The spec of a group whose layers have `specs`. Throws `std::invalid_argument` if there are
  /// none, or two differ in `type_id()`.
  static SlidingWindowSpec merge(std::span<const SlidingWindowSpec> specs);

  /// The same with `page_size` tokens a page; padding grows in proportion.
  SlidingWindowSpec copy_with_new_page_size(std::int32_t page_size) const;

  friend bool operator==(const SlidingWindowSpec& a, const SlidingWindowSpec& b) {
    return a.layout() == b.layout() && a.sliding_window_ == b.sliding_window_;
  }

 private:
  std::int32_t sliding_window_;
};

}  // namespace pagedkv
