#include "pagedkv/policy/full_attention.h"

namespace pagedkv {

std::int32_t FullAttentionPolicy::find_longest_hit(const CachedPages& cached,
                                                   const GroupHashes& hashes,
                                                   std::int32_t max_tokens, std::int32_t,
                                                   std::vector<PageId>& pages) const {
  constexpr std::int32_t kAhead = 16;  // pages from one prefetch to the next, and to the look-up
  const std::int32_t max_pages = max_tokens / page_size();
  pages.clear();
  for (std::int32_t i = 0; i < max_pages; ++i) {
    if (i + 2 * kAhead < max_pages) cached.prefetch(hashes[i + 2 * kAhead], group());
    if (i + kAhead < max_pages && i >= kAhead) cached.prefetch_record(hashes[i + kAhead], group());
    const PageId page = cached.find(hashes[i], group());
    if (page == kNoPage) break;
    pages.push_back(page);
  }
  return static_cast<std::int32_t>(pages.size()) * page_size();
}

}  // namespace pagedkv
