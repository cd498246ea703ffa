#include "pagedkv/spec/sliding_window_spec.h"

#include "pagedkv/spec/merge.h"

namespace pagedkv {

SlidingWindowSpec::SlidingWindowSpec(const AttentionLayout& layout, std::int32_t sliding_window)
    : AttentionSpec(kName, layout), sliding_window_(sliding_window) {
  check_at_least_one(kName, "sliding_window", sliding_window);
}

std::string SlidingWindowSpec::type_id() const {
  return std::string(kind()) + "_" + std::to_string(sliding_window_) + "_" +
         std::to_string(page_size()) + "_" + std::to_string(page_size_bytes());
}

SlidingWindowSpec SlidingWindowSpec::merge(std::span<const SlidingWindowSpec> specs) {
  return first_if_mergeable(specs);
}

SlidingWindowSpec SlidingWindowSpec::copy_with_new_page_size(std::int32_t page_size) const {
  return SlidingWindowSpec(layout_with(kName, page_size), sliding_window_);
}

}  // namespace pagedkv
