#include "pagedkv/policy/state_space.h"

namespace pagedkv {

std::int32_t StateSpacePolicy::find_longest_hit(const CachedPages& cached,
                                                const GroupHashes& hashes, std::int32_t max_tokens,
                                                std::int32_t num_redone,
                                                std::vector<PageId>& pages) const {
  pages.clear();
  if (!keeps_checkpoints_) return 0;
  const std::int32_t redone_pages = num_redone / page_size();
  for (std::int32_t i = max_tokens / page_size() - redone_pages - 1; i >= 0; --i) {
    const PageId page = cached.find(hashes[i], group());
    if (page == kNoPage) continue;
    pages.assign(static_cast<std::size_t>(i + 1 + redone_pages), kNullPage);
    pages[static_cast<std::size_t>(i)] = page;
    return (i + 1 + redone_pages) * page_size();
  }
  return 0;
}

}  // namespace pagedkv
