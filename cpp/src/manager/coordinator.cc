#include "pagedkv/manager/coordinator.h"

#include "pagedkv/error.h"
#include "pagedkv/math.h"

namespace pagedkv {

Coordinator::Coordinator(std::span<const CacheGroupSpec> groups) {
  if (groups.empty()) throw_value_error("CacheManager", "kv_cache_groups must not be empty");
  for (const CacheGroupSpec& group : groups) {
    policies_.push_back(make_policy(num_groups(), group.kv_cache_spec));
    if (policies_.back()->page_size() != page_size()) {
      throw_value_error("CacheManager", "all groups must have one page size, group 0 has ",
                        page_size(), " and group ", num_groups() - 1, " has ",
                        policies_.back()->page_size());
    }
  }
}

std::int32_t Coordinator::find_longest_hit(const PagePool& pool, std::span<const PageHash> hashes,
                                           std::int32_t max_tokens, GroupPages& pages) const {
  pages.resize(policies_.size());
  std::int32_t length = round_down(max_tokens, page_size());
  std::size_t group = 0;
  for (std::size_t agreed = 0; agreed < policies_.size();) {
    const std::int32_t served =
        policies_[group]->find_longest_hit(pool, hashes, length, pages[group]);
    agreed = served == length ? agreed + 1 : 1;
    length = served;
    group = group + 1 == policies_.size() ? 0 : group + 1;
  }
  return length;
}

}  // namespace pagedkv
