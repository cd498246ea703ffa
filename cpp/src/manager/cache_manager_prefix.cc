#include <algorithm>

#include "pagedkv/manager/cache_manager.h"
#include "pagedkv/manager/manager_observer.h"

// What of a request is in the cache.
namespace pagedkv {
namespace {

std::size_t index(std::int32_t position) { return static_cast<std::size_t>(position); }

}  // namespace

std::int32_t CacheManager::find_prefix(Request& request, std::int32_t max_tokens, ShardId shard,
                                       GroupPages& pages) const {
  if (observer_ != nullptr) [[unlikely]] {
    return observed(observer_, FindPrefixCall{&request, max_tokens, shard, &pages},
                    [&] { return find_prefix(request, max_tokens, shard, pages); });
  }
  check_shard("CacheManager.match", shard);
  pages.assign(index(num_groups()), {});
  if (!enable_caching()) return 0;
  const auto hashes = request.page_hashes(hash_page_size(), hasher());
  const std::int64_t num_known =
      (static_cast<std::int64_t>(hashes.size()) + 1) * hash_page_size() - 1;
  max_tokens = static_cast<std::int32_t>(std::min<std::int64_t>(max_tokens, num_known));
  if (max_tokens < prefix_unit()) return 0;
  return coordinator_.find_longest_hit({pool_, shard}, hashes, max_tokens,
                                       use_eagle() ? static_cast<std::int32_t>(prefix_unit()) : 0,
                                       pages);
}

std::int32_t CacheManager::match(Request& request, ShardId shard) {
  if (observer_ != nullptr) [[unlikely]] {
    return observed(observer_, MatchCall{&request, shard}, [&] { return match(request, shard); });
  }
  const std::int32_t max_tokens = request.is_allocated() ? 0 : request.num_tokens() - 1;
  return find_prefix(request, max_tokens, shard, hit_);
}

void CacheManager::match_shards(Request& request, std::span<std::int32_t> num_tokens) {
  ShardId shard = 0;
  for (std::int32_t& tokens : num_tokens) tokens = match(request, shard++);
}

std::int32_t CacheManager::find_again(Request& request, std::int32_t num_tokens, ShardId shard,
                                      GroupPages& pages) const {
  if (observer_ != nullptr) [[unlikely]] {
    return observed(observer_, FindAgainCall{&request, num_tokens, shard, &pages},
                    [&] { return find_again(request, num_tokens, shard, pages); });
  }
  pages.assign(index(num_groups()), {});
  if (!enable_caching() || num_tokens <= 0) return 0;
  const auto hashes = request.page_hashes(hash_page_size(), hasher());
  num_tokens = static_cast<std::int32_t>(
      std::min(std::int64_t{num_tokens}, std::ssize(hashes) * hash_page_size()));
  return coordinator_.find_longest_hit({pool_, shard}, hashes, num_tokens, 0, pages);
}

}  // namespace pagedkv
