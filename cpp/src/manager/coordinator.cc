#include "pagedkv/manager/coordinator.h"

#include <numeric>

#include "pagedkv/error.h"
#include "pagedkv/math.h"
#include "pagedkv/pool/page.h"

namespace pagedkv {

Coordinator::Coordinator(std::span<const CacheGroupSpec> groups,
                         std::optional<std::int32_t> hash_page_size, RedoRule redo_rule) {
  constexpr auto kOperation = "CacheManager";
  if (groups.empty()) throw_value_error(kOperation, "kv_cache_groups must not be empty");
  if (groups.size() > Page::kMaxGroups) {
    throw_value_error(kOperation, "kv_cache_groups must be at most ", Page::kMaxGroups, ", got ",
                      groups.size());
  }
  for (const CacheGroupSpec& group : groups) {
    policies_.push_back(make_policy(num_groups(), group.kv_cache_spec));
    const std::int32_t page_size = policies_.back()->page_size();
    hash_page_size_ = std::gcd(hash_page_size_, page_size);
    // Page sizes are int32, so the first product that is too long for any request still fits.
    if (prefix_unit_ < std::int64_t{1} << 31) {
      prefix_unit_ = std::lcm(prefix_unit_, std::int64_t{page_size});
    }
  }
  rounds_.resize(redo_rule == RedoRule::kPrefix ? 1 : 2);
  for (const auto& policy : policies_) {
    (policy->reads_whole_prefix() ? rounds_.front() : rounds_.back()).push_back(policy->group());
  }
  std::erase_if(rounds_, [](const auto& round) { return round.empty(); });
  if (!hash_page_size) return;
  for (const auto& policy : policies_) {
    if (*hash_page_size < 1 || policy->page_size() % *hash_page_size != 0) {
      throw_value_error(kOperation, "hash_page_size must divide every group's page size, got ",
                        *hash_page_size, " where group ", policy->group(), " has ",
                        policy->page_size());
    }
  }
  hash_page_size_ = *hash_page_size;
}

std::int32_t Coordinator::agree(std::span<const GroupId> groups, const CachedPages& cached,
                                std::span<const PageHash> hashes, std::int32_t max_tokens,
                                std::int32_t num_redone, GroupPages& pages) const {
  std::int32_t length = max_tokens;
  std::size_t i = 0;
  for (std::size_t agreed = 0; agreed < groups.size();) {
    const GroupId group = groups[i];
    const std::int32_t served =
        policy(group).find_longest_hit(cached, hashes_of(group, hashes), length, num_redone,
                                       pages[static_cast<std::size_t>(group)]);
    agreed = served == length ? agreed + 1 : 1;
    length = served;
    i = i + 1 == groups.size() ? 0 : i + 1;
  }
  return std::max(length - num_redone, 0);
}

std::int32_t Coordinator::find_longest_hit(const CachedPages& cached,
                                           std::span<const PageHash> hashes,
                                           std::int32_t max_tokens, std::int32_t num_redone,
                                           GroupPages& pages) const {
  pages.resize(policies_.size());
  std::int32_t length = max_tokens;
  for (const auto& groups : rounds_) {
    length = agree(groups, cached, hashes, length, num_redone, pages);
  }
  for (const auto& policy : policies_) {
    pages[static_cast<std::size_t>(policy->group())].resize(
        static_cast<std::size_t>(length / policy->page_size()));
  }
  return length;
}

}  // namespace pagedkv
