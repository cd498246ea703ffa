#include "pagedkv/policy/full_attention.h"

namespace pagedkv {

std::int32_t FullAttentionPolicy::find_longest_hit(const CachedPages& cached,
                                                   const GroupHashes& hashes,
                                                   std::int32_t max_tokens, std::int32_t,
                                                   std::vector<PageId>& pages) const {
  pages.clear();
  const std::int32_t max_pages = max_tokens / page_size();
  for (std::int32_t i = 0; i < max_pages; ++i) {
    cached.prefetch_run(hashes, i, max_pages, group());
    const PageId page = cached.find(hashes[i], group());
    if (page == kNoPage) break;
    pages.push_back(page);
  }
  return static_cast<std::int32_t>(pages.size()) * page_size();
}

}  // namespace pagedkv
