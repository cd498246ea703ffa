#include "pagedkv/manager/cache_manager.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "pagedkv/error.h"
#include "pagedkv/manager/manager_observer.h"
#include "pagedkv/math.h"

namespace pagedkv {
namespace {

// Before the pool is made, which may be large.
PageId check_sizes(PageId num_pages, const Coordinator& coordinator, std::int32_t max_model_len,
                   const CacheManagerOptions& options) {
  if (options.as_easydel && (options.free_order != FreeOrder::kLru || options.prefer_contiguous)) {
    throw_value_error("CacheManager", "as_easydel needs free_order lru and no prefer_contiguous");
  }
  if (max_model_len < 1) {
    throw_value_error("CacheManager", "max_model_len must be >= 1, got ", max_model_len);
  }
  for (GroupId group = 0; group < coordinator.num_groups(); ++group) {
    const GroupPolicy& policy = coordinator.policy(group);
    if (num_pages > 0 && policy.has_slots() && !checked_mul(num_pages, policy.page_size())) {
      throw_value_error("CacheManager", "slots are int32: num_pages * page_size must be <= ",
                        std::numeric_limits<std::int32_t>::max(), ", got ", num_pages, " * ",
                        policy.page_size());
    }
  }
  return num_pages;
}

std::size_t index(std::int32_t position) { return static_cast<std::size_t>(position); }

}  // namespace

CacheManager::CacheManager(PageId num_pages, std::span<const CacheGroupSpec> kv_cache_groups,
                           std::int32_t max_model_len, const CacheManagerOptions& options)
    : options_(options),
      coordinator_(kv_cache_groups, options.hash_page_size,
                   options.as_easydel ? RedoRule::kEachKind : RedoRule::kPrefix),
      pool_(check_sizes(num_pages, coordinator_, max_model_len, options), options.free_order),
      max_model_len_(max_model_len),
      new_rows_(index(num_groups())),
      growths_(index(num_groups())) {
  for (const CacheGroupSpec& group : kv_cache_groups) specs_.push_back(group.kv_cache_spec);
  set_num_shards(options.num_shards);
}

CacheManager::~CacheManager() {
  for (RequestState& state : states_) {
    if (state.request != nullptr) detach(*state.request);
  }
}

const GroupPolicy& CacheManager::policy(GroupId group) const {
  if (group >= 0 && group < num_groups()) return coordinator_.policy(group);
  throw_index_error("CacheManager", "group must be in [0, ", num_groups(), "), got ", group);
}

std::int32_t CacheManager::num_requests() const {
  return static_cast<std::int32_t>(states_.size() - free_states_.size());
}

RequestState& CacheManager::state_of(const char* operation, const Request& request) {
  return const_cast<RequestState&>(std::as_const(*this).state_of(operation, request));
}

const RequestState& CacheManager::state_of(const char* operation, const Request& request) const {
  if (request.owner_ == this) return states_[index(request.state_)];
  throw_value_error(operation, "request '", request.request_id(), "' holds ",
                    request.owner_ == nullptr ? "no pages (freed already, or never allocated)"
                                              : "pages of another manager");
}

RequestState& CacheManager::attach(Request& request) {
  if (free_states_.empty()) {
    rows_.resize((states_.size() + 1) * index(num_groups()));
    free_states_.push_back(static_cast<std::int32_t>(states_.size()));
    states_.emplace_back();
  }
  request.owner_ = this;
  request.state_ = free_states_.back();
  free_states_.pop_back();
  RequestState& state = states_[index(request.state_)];
  state.request = &request;
  peak_requests_ = std::max(peak_requests_, num_requests());
  return state;
}

void CacheManager::detach(Request& request) {
  RequestState& state = states_[index(request.state_)];
  state = {};
  for (PageRow& row : rows_of(request)) row.clear();
  request.bounds_ = {.num_changes = request.bounds_.num_changes};
  free_states_.push_back(request.state_);
  request.owner_ = nullptr;
  request.state_ = -1;
  request.num_computed_tokens_ = request.num_shown_tokens_ = 0;
}

void CacheManager::set_num_shards(std::int32_t num_shards) {
  if (observer_ != nullptr) [[unlikely]] {
    return observed(observer_, SetNumShardsCall{num_shards}, [&] { set_num_shards(num_shards); });
  }
  if (num_shards == pool_.shards().size()) return;
  pool_.set_num_shards(num_shards);
  for (RequestState& state : states_) {
    if (state.request != nullptr) state.shard = shard_of(rows_of(*state.request), pool_.shards());
  }
}

// Makes `new_rows_` the rows of a request that goes on after its cached tokens.
void CacheManager::start_rows(Request& request, const Demand& demand) {
  const std::int32_t num_cached = demand.num_cached_tokens;
  GroupPages* prefix = demand.prefix == nullptr ? &hit_ : demand.prefix;
  if (demand.prefix != nullptr) {
    check_prefix(request, demand);
  } else if (const auto found = find_again(request, num_cached, demand.shard, hit_);
             found < num_cached) {
    throw_value_error("CacheManager.allocate", "only ", found, " of the first ", num_cached,
                      " tokens of request '", request.request_id(), "' are cached: match again");
  }
  for (GroupId group = 0; group < num_groups(); ++group) {
    auto& pages = (*prefix)[index(group)];
    const auto first_real = std::ranges::find_if(pages, [](PageId page) { return page != 0; });
    new_rows_[index(group)].adopt(
        pages, options_.as_easydel ? static_cast<std::int32_t>(first_real - pages.begin())
                                   : coordinator_.policy(group).first_needed_page(num_cached));
  }
}

// EasyDeL keeps, in a chunked group, the page that it looks up the parent of the next digest in.
std::int32_t CacheManager::first_needed_page(const PageRow& row, GroupId group,
                                             std::int32_t num_computed_tokens) const {
  const GroupPolicy& policy = coordinator_.policy(group);
  const std::int32_t first = policy.first_needed_page(num_computed_tokens);
  if (!options_.as_easydel || !policy.keeps_last_cached_page() || row.num_cached() == 0) {
    return first;
  }
  return std::min(first, row.num_cached() - 1);
}

void CacheManager::note_change(Request& request) {
  std::int32_t num_quiet = max_model_len_;
  for (GroupId group = 0; group < num_groups(); ++group) {
    const PageRow& row = row_of(request, group);
    num_quiet = std::min(
        num_quiet, coordinator_.policy(group).num_quiet_tokens(row.size(), row.num_skipped()));
  }
  request.bounds_.num_quiet_tokens = num_quiet;
  ++request.bounds_.num_changes;
  note_next_full(request);
}

void CacheManager::note_next_full(Request& request) const {
  std::int32_t& next_full = request.bounds_.next_full_tokens;
  next_full = std::numeric_limits<std::int32_t>::max();
  if (!enable_caching()) return;
  for (GroupId group = 0; group < num_groups(); ++group) {
    const PageRow& row = row_of(request, group);
    if (row.num_cached() == row.size()) continue;
    const std::int64_t end =
        std::int64_t{row.num_cached() + 1} * coordinator_.policy(group).page_size();
    if (end < next_full) next_full = static_cast<std::int32_t>(end);
  }
}

bool CacheManager::allocate(Request& request, const Demand& demand) {
  if (observer_ != nullptr) [[unlikely]] {
    return observed(observer_, AllocateCall{&request, demand},
                    [&] { return allocate(request, demand); });
  }
  check_shard("CacheManager.allocate", demand.shard);
  if (is_quiet(request, demand)) {
    make_quiet_room(request, demand);
    return true;
  }
  check_demand(request, demand);
  const bool is_new = !request.is_allocated();
  if (is_new) start_rows(request, demand);
  RequestState* state = is_new ? nullptr : &states_[index(request.state_)];
  const std::span<PageRow> rows = is_new ? std::span(new_rows_) : rows_of(request);

  const std::int32_t num_computed = request.num_computed_tokens() + demand.num_cached_tokens;
  const auto num_tokens = static_cast<std::int32_t>(
      std::min(std::int64_t{num_computed} + demand.num_new_tokens, std::int64_t{max_model_len_}));
  const RequestLength length{num_tokens,
                             std::min(demand.num_lookahead_tokens, max_model_len_ - num_tokens),
                             request.num_encoder_tokens()};
  for (GroupId group = 0; group < num_groups(); ++group) {
    const PageRow& row = rows[index(group)];
    growths_[index(group)] =
        row.plan(coordinator_.policy(group), length, first_needed_page(row, group, num_computed));
  }
  ShardId shard = demand.shard;
  if (demand.stays_in_shard && pool_.shards().size() > 1) {
    // A window may have left pages in other shards behind.
    const bool is_sure = !is_new && !state->shard.is_mixed();
    const CommonShard common = is_sure ? state->shard : shard_of(rows, pool_.shards());
    if (common.get() != kAnyShard) shard = common.get();
  }
  if (!has_room(request, rows, demand, shard)) {
    ++num_failed_allocations_;
    return false;
  }

  if (is_new) {
    state = &attach(request);
    std::ranges::swap_ranges(rows_of(request), new_rows_);
    for (GroupId group = 0; group < num_groups(); ++group) {
      row_of(request, group).hold(pool_, claim_for(request, group, shard));
    }
    state->shard = shard_of(rows_of(request), pool_.shards());
    if (enable_caching()) {
      num_query_tokens_ += request.num_tokens();
      num_hit_tokens_ += demand.num_cached_tokens;
    }
    ++num_admitted_;
  } else {
    for (GroupId group = 0; group < num_groups(); ++group) {
      rows[index(group)].skip(pool_, growths_[index(group)].first_needed);
    }
  }
  for (GroupId group = 0; group < num_groups(); ++group) {
    PageRow& row = row_of(request, group);
    const PageRow::Growth& growth = growths_[index(group)];
    if (growth.first_filled >= growth.num_pages) continue;
    row.grow(pool_, growth, claim_for(request, group, shard));
    state->shard.add(row.pages().subspan(index(growth.first_filled)), pool_.shards());
  }
  request.bounds_.num_allocated_tokens =
      std::max(request.bounds_.num_allocated_tokens, num_tokens + length.num_lookahead_tokens);
  request.num_computed_tokens_ = num_computed;
  request.num_shown_tokens_ = std::max(request.num_shown_tokens_, demand.num_cached_tokens);
  note_change(request);
  return true;
}

bool CacheManager::commit(Request& request, std::int32_t num_computed_tokens) {
  if (observer_ != nullptr) [[unlikely]] {
    return observed(observer_, CommitCall{&request, num_computed_tokens},
                    [&] { return commit(request, num_computed_tokens); });
  }
  check_commit(request, num_computed_tokens);
  return commit_checked(request, num_computed_tokens);
}

bool CacheManager::commit_full_pages(Request& request, std::int32_t num_computed_tokens) {
  if (observer_ != nullptr) [[unlikely]] {
    return observed(observer_, CommitCall{&request, num_computed_tokens},
                    [&] { return commit_checked(request, num_computed_tokens); });
  }
  const bool has_changed =
      cache_full_pages(request, num_computed_tokens, num_computed_tokens, options_.deduplicate);
  request.num_computed_tokens_ = num_computed_tokens;
  return has_changed;
}

void CacheManager::set_num_computed_tokens(Request& request, std::int32_t num_computed_tokens) {
  if (observer_ != nullptr) [[unlikely]] {
    return observed(observer_, SetNumComputedTokensCall{&request, num_computed_tokens},
                    [&] { set_num_computed_tokens(request, num_computed_tokens); });
  }
  constexpr auto kOperation = "CacheManager.set_num_computed_tokens";
  RequestState& state = state_of(kOperation, request);
  check_room(kOperation, request, num_computed_tokens);
  bool has_pages = false;
  bool has_changed = false;
  for (GroupId group = 0; group < num_groups(); ++group) {
    PageRow& row = row_of(request, group);
    const std::int32_t num_skipped = row.num_skipped();
    row.skip(pool_, first_needed_page(row, group, num_computed_tokens));
    has_changed |= row.num_skipped() != num_skipped;
    has_pages |= row.num_skipped() < row.size();
  }
  if (!has_pages) state.shard = {};
  if (has_changed) note_change(request);
  request.num_computed_tokens_ = num_computed_tokens;
}

void CacheManager::cache(Request& request, std::int32_t num_tokens, std::int64_t step_end,
                         const char* operation) {
  if (observer_ != nullptr) [[unlikely]] {
    return observed(observer_, CacheCall{&request, num_tokens, step_end, operation},
                    [&] { cache(request, num_tokens, step_end, operation); });
  }
  state_of(operation, request);
  check_room(operation, request, num_tokens);
  check_known(operation, request, num_tokens);
  if (step_end < num_tokens) {
    throw_value_error(operation, "a step that computes ", num_tokens, " tokens cannot end after ",
                      step_end);
  }
  cache_full_pages(request, num_tokens, step_end, false);
}

void CacheManager::prefetch_next_full(const Request& request) const {
  if (!request.is_hashed_with(hash_page_size(), hasher())) return;
  for (GroupId group = 0; group < num_groups(); ++group) {
    const GroupHashes hashes = coordinator_.hashes_of(group, request.chain_->digests());
    const std::int32_t page = row_of(request, group).num_cached();
    if (page < hashes.size()) pool_.prefetch(hashes[page], group);
  }
}

// Most steps end inside a page, and need no digests.
bool CacheManager::cache_full_pages(Request& request, std::int32_t num_tokens,
                                    std::int64_t step_end, bool deduplicate) {
  if (!enable_caching() || num_tokens < request.bounds_.next_full_tokens) return false;
  const auto hashes = request.page_hashes(hash_page_size(), hasher());
  std::int32_t num_replaced = 0;
  for (GroupId group = 0; group < num_groups(); ++group) {
    const GroupPolicy& policy = coordinator_.policy(group);
    PageRow& row = row_of(request, group);
    std::optional<EventLog::Row> told;
    if (EventLog* events = pool_.events()) [[unlikely]] {
      told.emplace(*events, RowSource{.tokens = request.tokens(),
                                      .extra_keys = &request.extra_keys(),
                                      .hashes = hashes,
                                      .hash_page_size = hash_page_size(),
                                      .page_size = policy.page_size(),
                                      .first_page = row.num_cached()});
    }
    num_replaced += row.cache(pool_, policy, coordinator_.hashes_of(group, hashes), num_tokens,
                              step_end, deduplicate);
  }
  num_replaced > 0 ? note_change(request) : note_next_full(request);
  request.num_shown_tokens_ =
      std::max(request.num_shown_tokens_, round_down(num_tokens, hash_page_size()));
  return num_replaced > 0;
}

// The order in which a request gives its pages back.
void CacheManager::append_last_first(std::span<const PageRow> rows, std::vector<PageId>& pages) {
  for (const PageRow& row : rows) {
    std::copy_if(row.pages().rbegin(), row.pages().rend(), std::back_inserter(pages),
                 [](PageId page) { return page != kNullPage; });
  }
}

void CacheManager::free(Request& request) {
  if (observer_ != nullptr) [[unlikely]] {
    return observed(observer_, FreeCall{&request}, [&] { free(request); });
  }
  state_of("CacheManager.free", request);
  scratch_.clear();
  append_last_first(rows_of(request), scratch_);
  pool_.free(scratch_);
  detach(request);
}

bool CacheManager::reset_prefix_cache() {
  if (observer_ != nullptr) [[unlikely]] {
    return observed(observer_, ResetPrefixCacheCall{}, [&] { return reset_prefix_cache(); });
  }
  return pool_.reset_prefix_cache();
}

void CacheManager::restore(std::span<const std::byte> snapshot) {
  if (observer_ != nullptr) [[unlikely]] {
    return observed(observer_, RestoreCall{snapshot}, [&] { restore_now(snapshot); });
  }
  restore_now(snapshot);
}

std::int32_t CacheManager::num_common_prefix_pages(const Request& request, GroupId group,
                                                   std::int32_t num_requests) const {
  const auto pages = page_ids(request, group);
  if (num_requests < 1) {
    throw_value_error("CacheManager.num_common_prefix_pages", "num_requests must be >= 1, got ",
                      num_requests);
  }
  if (!coordinator_.policy(group).reads_whole_prefix()) return 0;
  const auto end = std::ranges::find_if(
      pages, [&](PageId page) { return pool_.ref_count(page) - pins_.count(page) < num_requests; });
  return static_cast<std::int32_t>(end - pages.begin());
}

std::int32_t CacheManager::num_changes(const Request& request) const {
  state_of("CacheManager.num_changes", request);
  return request.bounds_.num_changes;
}

ManagerStats CacheManager::stats() const {
  return {.num_held_pages = pool_.num_held_pages(),
          .num_requests = num_requests(),
          .peak_requests = peak_requests_,
          .num_failed_allocations = num_failed_allocations_,
          .num_admitted = num_admitted_,
          .num_query_tokens = num_query_tokens_,
          .num_hit_tokens = num_hit_tokens_,
          .pool = pool_.counts()};
}

std::vector<Holding> CacheManager::holdings() const {
  std::vector<Holding> holdings;
  std::vector<PageId> pages;
  for (const RequestState& state : states_) {
    if (state.request == nullptr) continue;
    pages.clear();
    append_last_first(rows_of(*state.request), pages);
    holdings.push_back({state.request->request_id(), static_cast<std::int32_t>(pages.size())});
  }
  return holdings;
}

}  // namespace pagedkv
