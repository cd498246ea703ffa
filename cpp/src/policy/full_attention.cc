#include "pagedkv/policy/full_attention.h"

#include "pagedkv/math.h"

namespace pagedkv {

std::int32_t FullAttentionPolicy::find_longest_hit(const PagePool& pool,
                                                   std::span<const PageHash> hashes,
                                                   std::int32_t max_tokens,
                                                   std::vector<PageId>& pages) const {
  pages.clear();
  for (const PageHash& hash : hashes.first(static_cast<std::size_t>(max_tokens / page_size()))) {
    const PageId page = pool.find(hash, group());
    if (page == kNoPage) break;
    pages.push_back(page);
  }
  return static_cast<std::int32_t>(pages.size()) * page_size();
}

std::int32_t FullAttentionPolicy::num_pages_for(std::int32_t num_tokens) const {
  return ceil_div(num_tokens, page_size());
}

}  // namespace pagedkv
