#include <utility>
#include <vector>

#include "pagedkv/error.h"
#include "pagedkv/manager/cache_manager.h"

// What callers of the manager may not do, and what they can rely on.
namespace pagedkv {
namespace {

std::size_t index(std::int32_t position) { return static_cast<std::size_t>(position); }

}  // namespace

void CacheManager::check_shard(const char* operation, ShardId shard) const {
  if (shard == kAnyShard || (shard >= 0 && shard < pool_.shards().size())) return;
  throw_index_error(operation, "shard must be in [0, ", pool_.shards().size(), "), got ", shard);
}

void CacheManager::check_demand(const Request& request, const Demand& demand) const {
  constexpr auto kOperation = "CacheManager.allocate";
  check_shard(kOperation, demand.shard);
  if (request.is_allocated()) {
    state_of(kOperation, request);
    if (demand.num_cached_tokens != 0) {
      throw_value_error(kOperation, "request '", request.request_id(),
                        "' holds pages already: num_cached_tokens must be 0, got ",
                        demand.num_cached_tokens);
    }
  }
  if (demand.num_new_tokens < 1) {
    throw_value_error(kOperation, "num_new_tokens must be >= 1, got ", demand.num_new_tokens);
  }
  if (demand.num_lookahead_tokens < 0) {
    throw_value_error(kOperation, "num_lookahead_tokens must be >= 0, got ",
                      demand.num_lookahead_tokens);
  }
  if (demand.watermark_pages < 0) {
    throw_value_error(kOperation, "watermark_pages must be >= 0, got ", demand.watermark_pages);
  }
  if (demand.num_cached_tokens < 0 || demand.num_cached_tokens % prefix_unit() != 0) {
    throw_value_error(kOperation, "num_cached_tokens must be a multiple of prefix_unit ",
                      prefix_unit(), " and >= 0, got ", demand.num_cached_tokens);
  }
  if (enable_caching()) request.check_hashable(hash_page_size(), hasher());
  const std::int64_t num_tokens = std::int64_t{request.num_computed_tokens()} +
                                  demand.num_cached_tokens + demand.num_new_tokens;
  if (demand.may_be_ahead) return;
  if (num_tokens > max_model_len_) {
    throw_value_error(kOperation, "request '", request.request_id(), "' would have ", num_tokens,
                      " tokens, max_model_len is ", max_model_len_);
  }
  if (num_tokens > request.num_tokens()) {
    throw_value_error(kOperation, "request '", request.request_id(), "' has ", request.num_tokens(),
                      " tokens, cannot compute ", num_tokens);
  }
}

// That the given pages hold the tokens of the request, and all of them that are needed.
void CacheManager::check_prefix(Request& request, const Demand& demand) const {
  constexpr auto kOperation = "CacheManager.allocate";
  const auto fail = [&](const auto&... parts) {
    throw_value_error(kOperation, "the given pages are not a cached prefix of ",
                      demand.num_cached_tokens, " tokens of request '", request.request_id(),
                      "': ", parts...);
  };
  if (!enable_caching()) fail("caching is off");
  const auto hashes = request.page_hashes(hash_page_size(), hasher());
  if (std::ssize(hashes) * hash_page_size() < demand.num_cached_tokens) fail("it has fewer tokens");
  if (std::cmp_not_equal(demand.prefix->size(), num_groups())) {
    fail("got ", demand.prefix->size(), " rows for ", num_groups(), " groups");
  }
  for (GroupId group = 0; group < num_groups(); ++group) {
    const GroupPolicy& policy = coordinator_.policy(group);
    const GroupHashes group_hashes = coordinator_.hashes_of(group, hashes);
    const auto& pages = (*demand.prefix)[index(group)];
    if (std::cmp_not_equal(pages.size(), demand.num_cached_tokens / policy.page_size())) {
      fail("group ", group, " has ", pages.size(), " pages");
    }
    const std::int32_t first_needed = policy.first_needed_page(demand.num_cached_tokens);
    for (std::int32_t i = 0; std::cmp_less(i, pages.size()); ++i) {
      const PageId page = pages[index(i)];
      if (page == kNullPage && i < first_needed) continue;
      if (page <= kNullPage || page >= pool_.num_pages() || pool_.group(page) != group ||
          pool_.digest(page) != group_hashes[i]) {
        fail("page ", page, " of group ", group, " has other content (now)");
      }
    }
  }
}

void CacheManager::check_room(const char* operation, const Request& request,
                              std::int64_t num_tokens) {
  if (num_tokens < 0) {
    throw_value_error(operation, "the number of tokens must be >= 0, got ", num_tokens);
  }
  const std::int32_t room = request.bounds_.num_allocated_tokens;
  if (num_tokens > room) {
    throw_value_error(operation, "request '", request.request_id(), "' has room for ", room,
                      " tokens, got ", num_tokens);
  }
}

void CacheManager::check_known(const char* operation, const Request& request,
                               std::int64_t num_tokens) {
  if (num_tokens <= request.num_tokens()) return;
  throw_value_error(operation, "request '", request.request_id(), "' has ", request.num_tokens(),
                    " tokens, got ", num_tokens);
}

// Says which rule of `check_commit` does not hold.
void CacheManager::refuse_commit(const Request& request, std::int64_t num_computed_tokens) const {
  constexpr auto kOperation = "CacheManager.commit";
  state_of(kOperation, request);
  if (num_computed_tokens < request.num_computed_tokens()) {
    throw_value_error(kOperation, "request '", request.request_id(), "' has ",
                      request.num_computed_tokens(), " tokens computed already, got ",
                      num_computed_tokens);
  }
  check_room(kOperation, request, num_computed_tokens);
  check_known(kOperation, request, num_computed_tokens);
}

void CacheManager::refuse_page_ids(const Request& request, GroupId group) const {
  constexpr auto kOperation = "CacheManager.page_ids";
  state_of(kOperation, request);
  throw_index_error(kOperation, "group must be in [0, ", num_groups(), "), got ", group);
}

void CacheManager::check_invariants() const {
  pool_.check_invariants();
  pins_.check_invariants();
  std::vector<std::int32_t> num_holders(index(pool_.num_pages()), 0);
  std::int32_t num_attached = 0;
  for (const RequestState& state : states_) {
    if (state.request == nullptr) continue;
    ++num_attached;
    const Request& request = *state.request;
    if (request.owner_ != this || &states_[index(request.state_)] != &state) {
      throw_broken("CacheManager", "request '", request.request_id(), "' does not point back");
    }
    const std::int32_t room = request.bounds_.num_allocated_tokens;
    if (request.num_computed_tokens() > room) {
      throw_broken("CacheManager", "request '", request.request_id(), "' has more computed than ",
                   room, " tokens");
    }
    for (GroupId group = 0; group < num_groups(); ++group) {
      const PageRow& row = row_of(request, group);
      row.check_invariants(pool_, coordinator_.policy(group),
                           {room, 0, request.num_encoder_tokens()}, request.request_id());
      for (PageId page : row.pages()) ++num_holders[index(page)];
    }
  }
  if (num_attached != num_requests()) {
    throw_broken("CacheManager", "counts ", num_requests(), " requests, found ", num_attached);
  }
  for (PageId page = kNullPage + 1; page < pool_.num_pages(); ++page) {
    if (num_holders[index(page)] + pins_.count(page) != pool_.ref_count(page)) {
      throw_broken("CacheManager", "page ", page, " has ref count ", pool_.ref_count(page),
                   ", requests hold it ", num_holders[index(page)], " times, pins ",
                   pins_.count(page));
    }
  }
}

}  // namespace pagedkv
