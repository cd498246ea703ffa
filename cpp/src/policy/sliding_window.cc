#include "pagedkv/policy/sliding_window.h"

namespace pagedkv {

std::int32_t SlidingWindowPolicy::find_longest_hit(const CachedPages& cached,
                                                   const GroupHashes& hashes,
                                                   std::int32_t max_tokens, std::int32_t num_redone,
                                                   std::vector<PageId>& pages) const {
  const std::int32_t max_pages = max_tokens / page_size();
  const std::int32_t wanted = ceil_div(window_ - 1, page_size()) + num_redone / page_size();
  pages.assign(static_cast<std::size_t>(max_pages), kNullPage);
  std::int32_t end = max_pages;  // pages [i + 1, end) are cached
  std::int32_t i = max_pages - 1;
  for (; i >= 0 && end - (i + 1) < wanted; --i) {
    const PageId page = cached.find(hashes[i], group());
    if (page == kNoPage) end = i;
    pages[static_cast<std::size_t>(i)] = page == kNoPage ? kNullPage : page;
  }
  // A run that does not reach back `wanted` pages reaches the beginning of the request.
  pages.resize(static_cast<std::size_t>(end));
  return end * page_size();
}

}  // namespace pagedkv
