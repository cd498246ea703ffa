#include "pagedkv/manager/cache_manager.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "pagedkv/error.h"
#include "pagedkv/math.h"

namespace pagedkv {
namespace {

// Before the pool is made, which may be large.
PageId check_sizes(PageId num_pages, const Coordinator& coordinator, std::int32_t max_model_len) {
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
      coordinator_(kv_cache_groups, options.hash_page_size),
      pool_(check_sizes(num_pages, coordinator_, max_model_len)),
      max_model_len_(max_model_len),
      new_rows_(index(num_groups())),
      plans_(index(num_groups())) {}

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

CacheManager::RequestState& CacheManager::state_of(const char* operation, const Request& request) {
  return const_cast<RequestState&>(std::as_const(*this).state_of(operation, request));
}

const CacheManager::RequestState& CacheManager::state_of(const char* operation,
                                                         const Request& request) const {
  if (request.owner_ == this) return states_[index(request.state_)];
  throw_value_error(operation, "request '", request.request_id(), "' holds ",
                    request.owner_ == nullptr ? "no pages (freed already, or never allocated)"
                                              : "pages of another manager");
}

CacheManager::RequestState& CacheManager::attach(Request& request) {
  if (free_states_.empty()) {
    free_states_.push_back(static_cast<std::int32_t>(states_.size()));
    states_.emplace_back().rows.resize(index(num_groups()));
  }
  request.owner_ = this;
  request.state_ = free_states_.back();
  free_states_.pop_back();
  RequestState& state = states_[index(request.state_)];
  state.request = &request;
  return state;
}

void CacheManager::detach(Request& request) {
  RequestState& state = states_[index(request.state_)];
  state.request = nullptr;
  for (Row& row : state.rows) {
    row.pages.clear();
    row.num_cached = row.num_skipped = 0;
  }
  state.num_allocated_tokens = 0;
  free_states_.push_back(request.state_);
  request.owner_ = nullptr;
  request.state_ = -1;
  request.num_computed_tokens_ = 0;
}

std::int32_t CacheManager::match(Request& request) {
  if (!enable_caching()) return 0;
  const auto hashes = request.page_hashes(hash_page_size(), hasher());
  if (request.is_allocated() || request.num_tokens() <= prefix_unit()) return 0;
  const auto unit = static_cast<std::int32_t>(prefix_unit());
  return coordinator_.find_longest_hit(pool_, hashes, request.num_tokens() - 1,
                                       use_eagle() ? unit : 0, hit_);
}

void CacheManager::check_allocate(const Request& request, std::int32_t num_new_tokens,
                                  std::int32_t num_cached_tokens,
                                  std::int32_t num_lookahead_tokens) const {
  constexpr auto kOperation = "CacheManager.allocate";
  if (request.is_allocated()) {
    state_of(kOperation, request);
    if (num_cached_tokens != 0) {
      throw_value_error(kOperation, "request '", request.request_id(),
                        "' holds pages already: num_cached_tokens must be 0, got ",
                        num_cached_tokens);
    }
  }
  if (num_new_tokens < 1) {
    throw_value_error(kOperation, "num_new_tokens must be >= 1, got ", num_new_tokens);
  }
  if (num_lookahead_tokens < 0) {
    throw_value_error(kOperation, "num_lookahead_tokens must be >= 0, got ", num_lookahead_tokens);
  }
  if (num_cached_tokens < 0 || num_cached_tokens % prefix_unit() != 0) {
    throw_value_error(kOperation, "num_cached_tokens must be a multiple of prefix_unit ",
                      prefix_unit(), " and >= 0, got ", num_cached_tokens);
  }
  if (enable_caching()) request.check_hashable(hash_page_size(), hasher());
  const std::int64_t num_tokens =
      std::int64_t{request.num_computed_tokens()} + num_cached_tokens + num_new_tokens;
  if (num_tokens > max_model_len_) {
    throw_value_error(kOperation, "request '", request.request_id(), "' would have ", num_tokens,
                      " tokens, max_model_len is ", max_model_len_);
  }
  if (num_tokens > request.num_tokens()) {
    throw_value_error(kOperation, "request '", request.request_id(), "' has ", request.num_tokens(),
                      " tokens, cannot compute ", num_tokens);
  }
}

// Makes `new_rows_` the rows of a request that goes on after `num_cached_tokens` tokens.
void CacheManager::start_rows(Request& request, std::int32_t num_cached_tokens) {
  std::int32_t cached = 0;
  hit_.assign(index(num_groups()), {});
  if (enable_caching() && num_cached_tokens > 0) {
    const auto hashes = request.page_hashes(hash_page_size(), hasher());
    cached = coordinator_.find_longest_hit(pool_, hashes, num_cached_tokens, 0, hit_);
  }
  if (cached < num_cached_tokens) {
    throw_value_error("CacheManager.allocate", "only ", cached, " of the first ", num_cached_tokens,
                      " tokens of request '", request.request_id(), "' are cached: match again");
  }
  for (GroupId group = 0; group < num_groups(); ++group) {
    Row& row = new_rows_[index(group)];
    row.pages.swap(hit_[index(group)]);
    row.num_cached = static_cast<std::int32_t>(row.pages.size());
    row.num_skipped =
        std::min(coordinator_.policy(group).first_needed_page(num_cached_tokens), row.num_cached);
  }
}

CacheManager::RowPlan CacheManager::plan_row(const GroupPolicy& policy, const Row& row,
                                             std::int32_t num_computed_tokens,
                                             const RequestLength& length) const {
  const auto have = static_cast<std::int32_t>(row.pages.size());
  RowPlan plan;
  plan.num_pages = std::max(policy.num_pages_for(length), have);
  plan.first_needed = std::min(policy.first_needed_page(num_computed_tokens), have);
  plan.first_filled =
      std::max({policy.first_written_page(length), row.num_skipped, plan.first_needed});
  return plan;
}

// How many pages the plan takes out of the free queue, less those it puts there.
std::int64_t CacheManager::num_pages_taken(const Row& row, const RowPlan& plan, bool is_new) const {
  std::int64_t taken = 0;
  for (std::int32_t i = plan.first_filled; i < plan.num_pages; ++i) {
    taken += std::cmp_greater_equal(i, row.pages.size()) || row.pages[index(i)] == kNullPage;
  }
  for (std::int32_t i = row.num_skipped; i < plan.first_needed; ++i) {
    taken -= row.pages[index(i)] != kNullPage && pool_.ref_count(row.pages[index(i)]) == 1;
  }
  if (!is_new) return taken;
  return taken + std::ranges::count_if(row.pages, [&](PageId page) {
           return page != kNullPage && pool_.ref_count(page) == 0;
         });
}

bool CacheManager::allocate(Request& request, std::int32_t num_new_tokens,
                            std::int32_t num_cached_tokens, std::int32_t num_lookahead_tokens) {
  check_allocate(request, num_new_tokens, num_cached_tokens, num_lookahead_tokens);
  const bool is_new = !request.is_allocated();
  if (is_new) start_rows(request, num_cached_tokens);

  const std::int32_t num_computed = request.num_computed_tokens() + num_cached_tokens;
  const std::int32_t num_tokens = num_computed + num_new_tokens;
  const RequestLength length{num_tokens,
                             std::min(num_lookahead_tokens, max_model_len_ - num_tokens),
                             request.num_encoder_tokens()};
  auto& rows = is_new ? new_rows_ : state_of("CacheManager.allocate", request).rows;
  std::int64_t num_taken = 0;
  for (GroupId group = 0; group < num_groups(); ++group) {
    plans_[index(group)] =
        plan_row(coordinator_.policy(group), rows[index(group)], num_computed, length);
    num_taken += num_pages_taken(rows[index(group)], plans_[index(group)], is_new);
  }
  if (num_taken > pool_.num_free_pages()) return false;

  RequestState& state = is_new ? attach(request) : state_of("CacheManager.allocate", request);
  if (is_new) {
    state.rows.swap(new_rows_);
    for (const Row& row : state.rows) {
      pool_.hold(std::span(row.pages).subspan(index(row.num_skipped)));
    }
  } else {
    for (GroupId group = 0; group < num_groups(); ++group) {
      give_back_skipped(state.rows[index(group)], plans_[index(group)].first_needed);
    }
  }
  for (GroupId group = 0; group < num_groups(); ++group) {
    fill_row(state.rows[index(group)], plans_[index(group)]);
  }
  state.num_allocated_tokens =
      std::max(state.num_allocated_tokens, num_tokens + length.num_lookahead_tokens);
  request.num_computed_tokens_ = num_computed;
  return true;
}

// The last of the pages becomes the coldest, as when a request is freed.
void CacheManager::give_back_skipped(Row& row, std::int32_t first_needed) {
  scratch_.clear();
  for (std::int32_t i = first_needed; i-- > row.num_skipped;) {
    PageId& page = row.pages[index(i)];
    if (page != kNullPage) scratch_.push_back(std::exchange(page, kNullPage));
  }
  pool_.free(scratch_);
  row.num_skipped = std::max(row.num_skipped, first_needed);
}

void CacheManager::fill_row(Row& row, const RowPlan& plan) {
  row.pages.resize(index(plan.num_pages), kNullPage);
  scratch_.resize(static_cast<std::size_t>(
      std::ranges::count(std::span(row.pages).subspan(index(plan.first_filled)), kNullPage)));
  if (!pool_.allocate(scratch_)) throw_broken("CacheManager", "the pool has fewer pages than free");
  auto next = scratch_.begin();
  for (PageId& page : std::span(row.pages).subspan(index(plan.first_filled))) {
    if (page == kNullPage) page = *next++;
  }
}

void CacheManager::commit(Request& request, std::int32_t num_computed_tokens) {
  constexpr auto kOperation = "CacheManager.commit";
  RequestState& state = state_of(kOperation, request);
  if (num_computed_tokens < request.num_computed_tokens()) {
    throw_value_error(kOperation, "request '", request.request_id(), "' has ",
                      request.num_computed_tokens(), " tokens computed already, got ",
                      num_computed_tokens);
  }
  if (num_computed_tokens > state.num_allocated_tokens) {
    throw_value_error(kOperation, "request '", request.request_id(), "' has room for ",
                      state.num_allocated_tokens, " tokens, got ", num_computed_tokens);
  }
  if (num_computed_tokens > request.num_tokens()) {
    throw_value_error(kOperation, "request '", request.request_id(), "' has ", request.num_tokens(),
                      " tokens, got ", num_computed_tokens);
  }
  std::span<const PageHash> hashes;
  if (enable_caching()) hashes = request.page_hashes(hash_page_size(), hasher());  // may throw
  request.num_computed_tokens_ = num_computed_tokens;
  if (!enable_caching()) return;
  for (GroupId group = 0; group < num_groups(); ++group) {
    cache_pages(group, state.rows[index(group)], hashes, num_computed_tokens);
  }
}

void CacheManager::cache_pages(GroupId group, Row& row, std::span<const PageHash> hashes,
                               std::int32_t num_computed_tokens) {
  const GroupPolicy& policy = coordinator_.policy(group);
  const GroupHashes group_hashes = coordinator_.hashes_of(group, hashes);
  const std::int32_t num_full = std::min(num_computed_tokens / policy.page_size(),
                                         static_cast<std::int32_t>(row.pages.size()));
  for (; row.num_cached < num_full; ++row.num_cached) {
    const PageId page = row.pages[index(row.num_cached)];
    if (page == kNullPage || !policy.is_complete(row.num_cached, num_computed_tokens)) continue;
    pool_.cache(page, group_hashes[row.num_cached], group);
  }
}

void CacheManager::free(Request& request) {
  RequestState& state = state_of("CacheManager.free", request);
  scratch_.clear();
  for (const Row& row : state.rows) {
    std::copy_if(row.pages.rbegin(), row.pages.rend(), std::back_inserter(scratch_),
                 [](PageId page) { return page != kNullPage; });
  }
  pool_.free(scratch_);
  detach(request);
}

std::span<const PageId> CacheManager::page_ids(const Request& request, GroupId group) const {
  constexpr auto kOperation = "CacheManager.page_ids";
  const RequestState& state = state_of(kOperation, request);
  if (group < 0 || group >= num_groups()) {
    throw_index_error(kOperation, "group must be in [0, ", num_groups(), "), got ", group);
  }
  return state.rows[index(group)].pages;
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
      pages, [&](PageId page) { return pool_.ref_count(page) < num_requests; });
  return static_cast<std::int32_t>(end - pages.begin());
}

std::int32_t CacheManager::num_allocated_tokens(const Request& request) const {
  return request.owner_ == this ? states_[index(request.state_)].num_allocated_tokens : 0;
}

void CacheManager::check_row(const Request& request, GroupId group, const Row& row) const {
  const GroupPolicy& policy = coordinator_.policy(group);
  const auto fail = [&](const auto&... parts) {
    throw_broken("CacheManager", "request '", request.request_id(), "', group ", group, ": ",
                 parts...);
  };
  const RequestLength length{num_allocated_tokens(request), 0, request.num_encoder_tokens()};
  if (policy.has_slots() && std::cmp_less(row.pages.size(), policy.num_pages_for(length))) {
    fail("short page table");
  }
  for (std::int32_t i = 0; std::cmp_less(i, row.pages.size()); ++i) {
    const PageId page = row.pages[index(i)];
    if (i < row.num_skipped && page != kNullPage) fail("page ", i, " is skipped and not null");
    if (page == kNullPage && policy.has_slots() && i >= row.num_skipped)
      fail("page ", i, " is null");
    if (page == kNullPage) continue;
    if (i >= row.num_cached && pool_.is_cached(page)) fail("page ", i, " is cached too soon");
    if (i < row.num_cached && policy.has_slots() && !pool_.is_cached(page)) {
      fail("page ", i, " is not cached");
    }
  }
}

void CacheManager::check_invariants() const {
  pool_.check_invariants();
  std::vector<std::int32_t> num_holders(index(pool_.num_pages()), 0);
  std::int32_t num_attached = 0;
  for (const RequestState& state : states_) {
    if (state.request == nullptr) continue;
    ++num_attached;
    const Request& request = *state.request;
    if (request.owner_ != this || &states_[index(request.state_)] != &state) {
      throw_broken("CacheManager", "request '", request.request_id(), "' does not point back");
    }
    if (request.num_computed_tokens() > state.num_allocated_tokens) {
      throw_broken("CacheManager", "request '", request.request_id(), "' has more computed than ",
                   state.num_allocated_tokens, " tokens");
    }
    for (GroupId group = 0; group < num_groups(); ++group) {
      check_row(request, group, state.rows[index(group)]);
      for (PageId page : state.rows[index(group)].pages) ++num_holders[index(page)];
    }
  }
  if (num_attached != num_requests()) {
    throw_broken("CacheManager", "counts ", num_requests(), " requests, found ", num_attached);
  }
  for (PageId page = kNullPage + 1; page < pool_.num_pages(); ++page) {
    if (num_holders[index(page)] != pool_.ref_count(page)) {
      throw_broken("CacheManager", "page ", page, " has ref count ", pool_.ref_count(page),
                   ", requests hold it ", num_holders[index(page)], " times");
    }
  }
}

}  // namespace pagedkv
