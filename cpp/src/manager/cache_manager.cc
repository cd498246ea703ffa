#include "pagedkv/manager/cache_manager.h"

#include <algorithm>
#include <limits>

#include "pagedkv/error.h"
#include "pagedkv/math.h"

namespace pagedkv {

namespace {

// Before the pool is made, which may be large.
PageId check_sizes(PageId num_pages, std::int32_t page_size, std::int32_t max_model_len) {
  if (max_model_len < 1) {
    throw_value_error("CacheManager", "max_model_len must be >= 1, got ", max_model_len);
  }
  if (num_pages > 0 && !checked_mul(num_pages, page_size)) {
    throw_value_error("CacheManager", "slots are int32: num_pages * page_size must be <= ",
                      std::numeric_limits<std::int32_t>::max(), ", got ", num_pages, " * ",
                      page_size);
  }
  return num_pages;
}

}  // namespace

CacheManager::CacheManager(PageId num_pages, std::span<const CacheGroupSpec> kv_cache_groups,
                           std::int32_t max_model_len, bool enable_caching,
                           const PageHasher& hasher)
    : coordinator_(kv_cache_groups),
      pool_(check_sizes(num_pages, coordinator_.page_size(), max_model_len)),
      max_model_len_(max_model_len),
      enable_caching_(enable_caching),
      hasher_(hasher) {}

CacheManager::~CacheManager() {
  for (RequestState& state : states_) {
    if (state.request != nullptr) detach(*state.request);
  }
}

std::int32_t CacheManager::num_requests() const {
  return static_cast<std::int32_t>(states_.size() - free_states_.size());
}

CacheManager::RequestState& CacheManager::state_of(const char* operation, const Request& request) {
  return const_cast<RequestState&>(std::as_const(*this).state_of(operation, request));
}

const CacheManager::RequestState& CacheManager::state_of(const char* operation,
                                                         const Request& request) const {
  if (request.owner_ == this) return states_[static_cast<std::size_t>(request.state_)];
  throw_value_error(operation, "request '", request.request_id(), "' holds ",
                    request.owner_ == nullptr ? "no pages (freed already, or never allocated)"
                                              : "pages of another manager");
}

CacheManager::RequestState& CacheManager::attach(Request& request) {
  if (free_states_.empty()) {
    free_states_.push_back(static_cast<std::int32_t>(states_.size()));
    states_.emplace_back();
  }
  request.owner_ = this;
  request.state_ = free_states_.back();
  free_states_.pop_back();
  RequestState& state = states_[static_cast<std::size_t>(request.state_)];
  state.request = &request;
  state.pages.resize(static_cast<std::size_t>(num_groups()));
  state.num_cached.assign(state.pages.size(), 0);
  return state;
}

void CacheManager::detach(Request& request) {
  RequestState& state = states_[static_cast<std::size_t>(request.state_)];
  state.request = nullptr;
  for (auto& row : state.pages) row.clear();
  state.num_allocated_tokens = 0;
  free_states_.push_back(request.state_);
  request.owner_ = nullptr;
  request.state_ = -1;
  request.num_computed_tokens_ = 0;
}

std::int32_t CacheManager::match(Request& request) {
  if (!enable_caching_) return 0;
  const auto hashes = request.page_hashes(page_size(), hasher_);
  if (request.is_allocated() || request.num_tokens() == 0) return 0;
  return coordinator_.find_longest_hit(pool_, hashes, request.num_tokens() - 1, hit_);
}

void CacheManager::check_allocate(const Request& request, std::int32_t num_new_tokens,
                                  std::int32_t num_cached_tokens) const {
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
  if (num_cached_tokens < 0 || num_cached_tokens % page_size() != 0) {
    throw_value_error(kOperation, "num_cached_tokens must be a multiple of page_size ", page_size(),
                      " and >= 0, got ", num_cached_tokens);
  }
  if (enable_caching_) request.check_hashable(page_size(), hasher_);
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

// Fills `hit_` with the cached pages of the first `num_cached_tokens` tokens.
void CacheManager::find_prefix(Request& request, std::int32_t num_cached_tokens) {
  const auto hashes = request.page_hashes(page_size(), hasher_);
  const std::int32_t cached =
      enable_caching_ ? coordinator_.find_longest_hit(pool_, hashes, num_cached_tokens, hit_) : 0;
  if (cached < num_cached_tokens) {
    throw_value_error("CacheManager.allocate", "only ", cached, " of the first ", num_cached_tokens,
                      " tokens of request '", request.request_id(), "' are cached: match again");
  }
}

bool CacheManager::allocate(Request& request, std::int32_t num_new_tokens,
                            std::int32_t num_cached_tokens) {
  check_allocate(request, num_new_tokens, num_cached_tokens);
  hit_.assign(static_cast<std::size_t>(num_groups()), {});
  if (num_cached_tokens > 0) find_prefix(request, num_cached_tokens);

  const bool is_new = !request.is_allocated();
  const std::int32_t num_computed = request.num_computed_tokens() + num_cached_tokens;
  const std::int32_t num_tokens = num_computed + num_new_tokens;

  // Pages that leave the free queue: new ones, and cached ones that nobody holds now.
  std::size_t num_new = 0;
  std::size_t num_revived = 0;
  for (GroupId group = 0; group < num_groups(); ++group) {
    const auto& hit = hit_[static_cast<std::size_t>(group)];
    const std::size_t have = is_new ? hit.size() : page_ids(request, group).size();
    const auto want =
        static_cast<std::size_t>(coordinator_.policy(group).num_pages_for(num_tokens));
    num_new += want > have ? want - have : 0;
    num_revived += static_cast<std::size_t>(
        std::ranges::count_if(hit, [&](PageId page) { return pool_.ref_count(page) == 0; }));
  }
  if (num_new + num_revived > static_cast<std::size_t>(pool_.num_free_pages())) return false;

  RequestState& state = is_new ? attach(request) : state_of("CacheManager.allocate", request);
  for (const auto& pages : hit_) pool_.hold(pages);
  scratch_.resize(num_new);
  if (!pool_.allocate(scratch_)) throw_broken("CacheManager", "the pool has fewer pages than free");
  auto next = scratch_.begin();
  for (GroupId group = 0; group < num_groups(); ++group) {
    const auto g = static_cast<std::size_t>(group);
    auto& row = state.pages[g];
    if (is_new) {
      row.assign(hit_[g].begin(), hit_[g].end());
      state.num_cached[g] = static_cast<std::int32_t>(row.size());
    }
    const auto want =
        static_cast<std::size_t>(coordinator_.policy(group).num_pages_for(num_tokens));
    while (row.size() < want) row.push_back(*next++);
  }
  state.num_allocated_tokens = std::max(state.num_allocated_tokens, num_tokens);
  request.num_computed_tokens_ = num_computed;
  return true;
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
  std::span<const PageHash> hashes;
  if (enable_caching_) hashes = request.page_hashes(page_size(), hasher_);  // may throw
  request.num_computed_tokens_ = num_computed_tokens;
  if (!enable_caching_) return;
  for (GroupId group = 0; group < num_groups(); ++group) {
    const auto& row = state.pages[static_cast<std::size_t>(group)];
    std::int32_t& num_cached = state.num_cached[static_cast<std::size_t>(group)];
    for (; num_cached < num_computed_tokens / page_size(); ++num_cached) {
      const auto page = static_cast<std::size_t>(num_cached);
      pool_.cache(row[page], hashes[page], group);
    }
  }
}

void CacheManager::free(Request& request) {
  RequestState& state = state_of("CacheManager.free", request);
  scratch_.clear();
  for (const auto& row : state.pages) scratch_.insert(scratch_.end(), row.rbegin(), row.rend());
  pool_.free(scratch_);
  detach(request);
}

std::span<const PageId> CacheManager::page_ids(const Request& request, GroupId group) const {
  constexpr auto kOperation = "CacheManager.page_ids";
  const RequestState& state = state_of(kOperation, request);
  if (group < 0 || group >= num_groups()) {
    throw_index_error(kOperation, "group must be in [0, ", num_groups(), "), got ", group);
  }
  return state.pages[static_cast<std::size_t>(group)];
}

std::int32_t CacheManager::num_allocated_tokens(const Request& request) const {
  return request.owner_ == this
             ? states_[static_cast<std::size_t>(request.state_)].num_allocated_tokens
             : 0;
}

void CacheManager::check_invariants() const {
  pool_.check_invariants();
  std::vector<std::int32_t> num_holders(static_cast<std::size_t>(pool_.num_pages()), 0);
  std::int32_t num_attached = 0;
  for (const RequestState& state : states_) {
    if (state.request == nullptr) continue;
    ++num_attached;
    const Request& request = *state.request;
    if (request.owner_ != this || &states_[static_cast<std::size_t>(request.state_)] != &state) {
      throw_broken("CacheManager", "request '", request.request_id(), "' does not point back");
    }
    if (request.num_computed_tokens() > state.num_allocated_tokens) {
      throw_broken("CacheManager", "request '", request.request_id(), "' has more computed than ",
                   state.num_allocated_tokens, " tokens");
    }
    for (std::size_t group = 0; group < state.pages.size(); ++group) {
      const auto& row = state.pages[group];
      if (std::cmp_less(row.size(), coordinator_.policy(static_cast<GroupId>(group))
                                        .num_pages_for(state.num_allocated_tokens))) {
        throw_broken("CacheManager", "request '", request.request_id(), "' has a short page table");
      }
      for (std::size_t i = 0; i < row.size(); ++i) {
        ++num_holders[static_cast<std::size_t>(row[i])];
        if (std::cmp_less(i, state.num_cached[group]) != pool_.is_cached(row[i])) {
          throw_broken("CacheManager", "request '", request.request_id(), "' counts ",
                       state.num_cached[group], " cached pages, page ", i, " differs");
        }
      }
    }
  }
  if (num_attached != num_requests()) {
    throw_broken("CacheManager", "counts ", num_requests(), " requests, found ", num_attached);
  }
  for (PageId page = kNullPage; page < pool_.num_pages(); ++page) {
    if (num_holders[static_cast<std::size_t>(page)] != pool_.ref_count(page)) {
      throw_broken("CacheManager", "page ", page, " has ref count ", pool_.ref_count(page),
                   ", requests hold it ", num_holders[static_cast<std::size_t>(page)], " times");
    }
  }
}

}  // namespace pagedkv
