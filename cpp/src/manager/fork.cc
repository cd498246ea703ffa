#include <algorithm>

#include "pagedkv/error.h"
#include "pagedkv/manager/cache_manager.h"
#include "pagedkv/manager/manager_observer.h"

namespace pagedkv {

void CacheManager::check_fork(const Request& parent, const Request& child) const {
  constexpr auto kOperation = "CacheManager.fork";
  const auto fail = [&](const auto&... parts) {
    throw_value_error(kOperation, "request '", child.request_id(), "' ", parts...);
  };
  state_of(kOperation, parent);
  const std::int32_t num_computed = parent.num_computed_tokens();
  if (num_computed == 0) {
    throw_value_error(kOperation, "request '", parent.request_id(),
                      "' has no computed tokens to go on from");
  }
  if (child.is_allocated()) fail("holds pages already");
  const auto computed = parent.tokens().first(
      std::min(static_cast<std::size_t>(num_computed), parent.tokens().size()));
  if (child.tokens().size() < computed.size() ||
      !std::ranges::equal(computed, child.tokens().first(computed.size()))) {
    fail("must begin with the ", num_computed, " computed tokens of request '", parent.request_id(),
         "'");
  }
  if (child.extra_keys() != parent.extra_keys()) {
    fail("must have the extra keys of request '", parent.request_id(), "'");
  }
  if (child.num_encoder_tokens() != parent.num_encoder_tokens()) {
    fail("must have as many encoder tokens as request '", parent.request_id(), "', ",
         parent.num_encoder_tokens(), ", has ", child.num_encoder_tokens());
  }
}

bool CacheManager::fork(Request& parent, Request& child, std::vector<PageCopies>& copies) {
  if (observer_ != nullptr) [[unlikely]] {
    return observed(observer_, ForkCall{&child, &parent, &copies},
                    [&] { return fork(parent, child, copies); });
  }
  check_fork(parent, child);
  const std::int32_t num_computed = parent.num_computed_tokens();
  const ShardId shard = shard_of(rows_of(parent), pool_.shards()).get();
  const auto rewritten_by = [&](GroupId group) {
    return coordinator_.policy(group).rewritten_pages(num_computed);
  };
  PageId num_copies = 0;
  for (GroupId group = 0; group < num_groups(); ++group) {
    num_copies += row_of(parent, group).num_pages_copied(rewritten_by(group));
  }
  if (num_copies > pool_.num_free_pages(shard)) {
    ++num_failed_allocations_;
    return false;
  }

  copies.assign(static_cast<std::size_t>(num_groups()), {});
  if (!child.chain_ && parent.is_hashed_with(hash_page_size(), hasher())) {
    child.chain_ = parent.chain_;
    child.chain_->truncate(static_cast<std::size_t>(num_computed / hash_page_size()));
  }
  RequestState& state = attach(child);  // may move the parent's rows
  for (GroupId group = 0; group < num_groups(); ++group) {
    row_of(child, group)
        .fork(pool_, row_of(parent, group), rewritten_by(group), claim_for(child, group, shard),
              copies[static_cast<std::size_t>(group)]);
  }
  state.shard = shard_of(rows_of(child), pool_.shards());
  child.bounds_.num_allocated_tokens = num_computed;
  child.num_computed_tokens_ = num_computed;
  // Neither may change the tokens of pages that the other reads.
  parent.num_shown_tokens_ = std::max(parent.num_shown_tokens_, num_computed);
  child.num_shown_tokens_ = num_computed;
  note_change(child);
  return true;
}

}  // namespace pagedkv
