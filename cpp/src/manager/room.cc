#include <algorithm>

#include "pagedkv/manager/cache_manager.h"

// Whether there are pages for what a request asks for.
namespace pagedkv {
namespace {

std::size_t index(std::int32_t position) { return static_cast<std::size_t>(position); }

}  // namespace

// Those of its row that only wait to be evicted, and are to be held again, are not free for others.
std::int64_t CacheManager::num_pages_taken(const PageRow& row, const PageRow::Growth& growth,
                                           bool is_new, const PageRange& range) const {
  const std::int64_t taken = row.num_pages_taken(growth);
  if (!is_new) return taken - row.num_pages_freed(growth, pool_, range);
  return taken + std::ranges::count_if(row.pages(), [&](PageId page) {
           return page != kNullPage && range.contains(page) && pool_.ref_count(page) == 0;
         });
}

// Whether the shard has the pages that `growths_` take.
bool CacheManager::has_room(const Request& request, std::span<const PageRow> rows,
                            const Demand& demand, ShardId shard) const {
  const bool is_new = !request.is_allocated();
  const PageRange range = pool_.shards().pages_of(shard);
  std::int64_t taken = 0;
  for (GroupId group = 0; group < num_groups(); ++group) {
    taken += num_pages_taken(rows[index(group)], growths_[index(group)], is_new, range);
  }
  const std::int64_t num_free = pool_.num_free_pages(shard);
  if (taken > num_free || (taken > 0 && taken > num_free - demand.watermark_pages)) return false;
  if (!demand.full_sequence_must_fit) return true;

  const RequestLength length{std::min(request.num_tokens(), max_model_len_), 0,
                             request.num_encoder_tokens()};
  std::int64_t taken_in_all = 0;
  for (GroupId group = 0; group < num_groups(); ++group) {
    const GroupPolicy& policy = coordinator_.policy(group);
    const PageRow& row = rows[index(group)];
    const PageRow::Growth& growth = growths_[index(group)];
    const PageRow::Growth whole = row.plan(policy, length, growth.first_needed);
    const std::int64_t most = policy.max_num_pages(length, demand.num_new_tokens);
    taken_in_all += std::max(std::min(num_pages_taken(row, whole, is_new, range), most),
                             num_pages_taken(row, growth, is_new, range));
  }
  return taken_in_all <= num_free - demand.watermark_pages;
}

}  // namespace pagedkv
