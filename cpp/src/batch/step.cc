#include "pagedkv/batch/step.h"

#include <utility>

#include "pagedkv/error.h"

namespace pagedkv {
namespace {

// What decides whether requests are quiet. By value: what a loop changes is none of it.
class Counts {
 public:
  explicit Counts(const StepDemand& step)
      : num_new_tokens_(step.num_new_tokens.data()),
        num_cached_tokens_(step.num_cached_tokens.empty() ? nullptr
                                                          : step.num_cached_tokens.data()),
        num_lookahead_tokens_(step.num_lookahead_tokens) {}

  Demand operator[](std::size_t i) const {
    return {.num_new_tokens = num_new_tokens_[i],
            .num_cached_tokens = num_cached_tokens_ == nullptr ? 0 : num_cached_tokens_[i],
            .num_lookahead_tokens = num_lookahead_tokens_};
  }

 private:
  const std::int32_t* num_new_tokens_;
  const std::int32_t* num_cached_tokens_;
  std::int32_t num_lookahead_tokens_;
};

Demand demand_of(const Request& request, const StepDemand& step, std::size_t i) {
  Demand demand = Counts(step)[i];
  if (!step.shards.empty()) demand.shard = step.shards[i];
  if (!request.is_allocated()) {
    demand.watermark_pages = step.watermark_pages;
    demand.full_sequence_must_fit = step.full_sequence_must_fit;
  }
  return demand;
}

void hash_all(const CacheManager& manager, std::span<Request* const> requests) {
  if (!manager.enable_caching()) return;
  Request::hash_pages(requests, manager.hash_page_size(), manager.hasher());
}

// Notes what a request is given: the difference between its rows before and after.
class GrantNotes {
 public:
  GrantNotes(const CacheManager& manager, std::size_t num_requests) : manager_(manager) {
    grant_.added.resize(static_cast<std::size_t>(manager.num_groups()));
    ends_.resize(grant_.added.size());
    for (AddedPages& added : grant_.added) {
      added.offsets.reserve(num_requests + 1);
      added.offsets.push_back(0);
    }
  }

  // Returns what `after` wants to know.
  std::int32_t before(const Request& request) {
    for (GroupId group = 0; group < manager_.num_groups(); ++group) {
      ends_[static_cast<std::size_t>(group)] =
          request.is_allocated() ? manager_.page_ids(request, group).size() : 0;
    }
    return request.is_allocated() ? manager_.num_changes(request) : -1;
  }

  void after(const Request& request, std::int32_t num_changes_before) {
    if (manager_.num_changes(request) == num_changes_before) return;
    for (GroupId group = 0; group < manager_.num_groups(); ++group) {
      const auto i = static_cast<std::size_t>(group);
      const auto pages = manager_.page_ids(request, group).subspan(ends_[i]);
      std::vector<PageId>& ids = grant_.added[i].ids;
      ids.insert(ids.end(), pages.begin(), pages.end());
    }
    grant_.changed_rows.push_back(grant_.num_requests);
  }

  // The next `num_requests` have what they need.
  void next(std::size_t num_requests) {
    grant_.num_requests += static_cast<std::int32_t>(num_requests);
    for (AddedPages& added : grant_.added) {
      added.offsets.insert(added.offsets.end(), num_requests,
                           static_cast<std::int32_t>(added.ids.size()));
    }
  }

  StepGrant take() { return std::move(grant_); }

 private:
  const CacheManager& manager_;
  StepGrant grant_;
  std::vector<std::size_t> ends_;
};

}  // namespace

void check_one_each(const char* operation, const char* name, std::size_t num_entries,
                    std::size_t num_requests) {
  if (num_entries == num_requests) return;
  throw_value_error(operation, name, " must have one entry a request, got ", num_entries, " for ",
                    num_requests);
}

void match_step(CacheManager& manager, std::span<Request* const> requests,
                std::span<const ShardId> shards, std::span<std::int32_t> num_cached_tokens) {
  constexpr auto kOperation = "CacheManager.match_requests";
  check_one_each(kOperation, "num_cached_tokens", num_cached_tokens.size(), requests.size());
  if (!shards.empty()) check_one_each(kOperation, "dp_shards", shards.size(), requests.size());
  hash_all(manager, requests);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    num_cached_tokens[i] = manager.match(*requests[i], shards.empty() ? kAnyShard : shards[i]);
  }
}

void match_step_in_shards(CacheManager& manager, std::span<Request* const> requests,
                          std::span<std::int32_t> num_cached_tokens) {
  const auto num_shards = static_cast<std::size_t>(manager.pool().shards().size());
  check_one_each("CacheManager.match_shards", "num_cached_tokens",
                 num_cached_tokens.size() / num_shards, requests.size());
  hash_all(manager, requests);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    manager.match_shards(*requests[i], num_cached_tokens.subspan(i * num_shards, num_shards));
  }
}

StepGrant allocate_step(CacheManager& manager, std::span<Request* const> requests,
                        const StepDemand& step) {
  constexpr auto kOperation = "CacheManager.allocate_step";
  check_one_each(kOperation, "num_new_tokens", step.num_new_tokens.size(), requests.size());
  if (!step.num_cached_tokens.empty()) {
    check_one_each(kOperation, "num_cached_tokens", step.num_cached_tokens.size(), requests.size());
  }
  if (!step.shards.empty()) {
    check_one_each(kOperation, "dp_shards", step.shards.size(), requests.size());
  }
  if (step.watermark_pages < 0) {
    throw_value_error(kOperation, "watermark_pages must be >= 0, got ", step.watermark_pages);
  }
  // What is quiet stays so, whatever the requests before it get.
  const Counts counts(step);
  std::vector<std::size_t> busy;
  const bool may_be_quiet = step.shards.empty() && !manager.is_observed();
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (may_be_quiet && manager.is_quiet(*requests[i], counts[i])) continue;
    manager.check_demand(*requests[i], demand_of(*requests[i], step, i));
    busy.push_back(i);
  }
  GrantNotes notes(manager, requests.size());
  GroupPages prefix;
  std::size_t done = 0;
  const auto make_quiet_room = [&](std::size_t end) {
    notes.next(end - done);
    for (std::size_t i = std::exchange(done, end); i < end; ++i) {
      manager.make_quiet_room(*requests[i], counts[i]);
    }
  };
  for (const std::size_t i : busy) {
    make_quiet_room(i);
    Request& request = *requests[i];
    Demand demand = demand_of(request, step, i);
    const std::int32_t changes = notes.before(request);
    if (demand.num_cached_tokens > 0) {
      const std::int32_t found =
          manager.find_again(request, demand.num_cached_tokens, demand.shard, prefix);
      if (found < demand.num_cached_tokens) return notes.take();
      demand.prefix = &prefix;
    }
    if (!manager.allocate(request, demand)) return notes.take();
    notes.after(request, changes);
    notes.next(1);
    done = i + 1;
  }
  make_quiet_room(requests.size());
  return notes.take();
}

std::vector<std::int32_t> commit_step(CacheManager& manager, std::span<Request* const> requests,
                                      std::span<const std::int32_t> num_new_tokens) {
  constexpr auto kOperation = "CacheManager.commit_step";
  check_one_each(kOperation, "num_new_tokens", num_new_tokens.size(), requests.size());
  const auto end_of = [&](std::size_t i) {
    return std::int64_t{requests[i]->num_computed_tokens()} + num_new_tokens[i];
  };
  std::vector<Request*> filling;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const Request& request = *requests[i];
    if (num_new_tokens[i] < 0) {
      throw_value_error(kOperation, "num_new_tokens must be >= 0, got ", num_new_tokens[i],
                        " for request '", request.request_id(), "'");
    }
    manager.check_commit(request, end_of(i));
    if (manager.fills_page(request, end_of(i))) filling.push_back(requests[i]);
  }
  if (filling.size() > 1) {
    hash_all(manager, filling);
    for (const Request* request : filling) manager.prefetch_next_full(*request);
  }
  std::vector<std::int32_t> changed_rows;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (manager.commit_checked(*requests[i], static_cast<std::int32_t>(end_of(i)))) {
      changed_rows.push_back(static_cast<std::int32_t>(i));
    }
  }
  return changed_rows;
}

StepFork fork_step(CacheManager& manager, std::span<Request* const> parents,
                   std::span<Request* const> children) {
  check_one_each("CacheManager.fork_requests", "parents", parents.size(), children.size());
  for (std::size_t i = 0; i < children.size(); ++i) manager.check_fork(*parents[i], *children[i]);
  StepFork forked;
  forked.copies.resize(static_cast<std::size_t>(manager.num_groups()));
  std::vector<PageCopies> copies;
  for (std::size_t i = 0; i < children.size(); ++i, ++forked.num_requests) {
    if (!manager.fork(*parents[i], *children[i], copies)) break;
    for (std::size_t group = 0; group < copies.size(); ++group) {
      forked.copies[group].insert(forked.copies[group].end(), copies[group].begin(),
                                  copies[group].end());
    }
  }
  return forked;
}

}  // namespace pagedkv
