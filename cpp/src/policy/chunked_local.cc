#include "pagedkv/policy/chunked_local.h"

namespace pagedkv {

std::int32_t ChunkedLocalPolicy::find_longest_hit(const CachedPages& cached,
                                                  const GroupHashes& hashes,
                                                  std::int32_t max_tokens, std::int32_t num_redone,
                                                  std::vector<PageId>& pages) const {
  const std::int32_t max_pages = max_tokens / page_size();
  const std::int32_t redone_pages = num_redone / page_size();
  // Where the request goes on, and the first token that it then sees.
  std::int32_t resume = std::max(max_pages - redone_pages, 0) * page_size();
  for (std::int32_t end = max_pages; end > redone_pages;) {
    const std::int32_t chunk_begin = round_down(resume, chunk_size_);
    const std::int32_t first = chunk_begin / page_size();
    pages.assign(static_cast<std::size_t>(first), kNullPage);
    std::int32_t i = first;
    for (; i < end; ++i) {
      const PageId page = cached.find(hashes[i], group());
      if (page == kNoPage) break;
      pages.push_back(page);
    }
    resume = (i - redone_pages) * page_size();
    if (resume >= chunk_begin) return i * page_size();
    end = i;  // too short to end in this chunk
  }
  pages.clear();
  return 0;
}

}  // namespace pagedkv
