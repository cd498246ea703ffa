#include "pagedkv/batch/step.h"

#include "pagedkv/error.h"

namespace pagedkv {
namespace {

Demand demand_of(const StepDemand& step, std::size_t i) {
  Demand demand;
  demand.num_new_tokens = step.num_new_tokens[i];
  demand.num_cached_tokens = step.num_cached_tokens.empty() ? 0 : step.num_cached_tokens[i];
  demand.num_lookahead_tokens = step.num_lookahead_tokens;
  return demand;
}

void check_counts(const char* operation, const char* name, std::size_t num_counts,
                  std::size_t num_requests) {
  if (num_counts == num_requests) return;
  throw_value_error(operation, name, " must have one entry a request, got ", num_counts, " for ",
                    num_requests);
}

// The length of each row before and after, of which the difference was added.
class RowEnds {
 public:
  RowEnds(const CacheManager& manager, StepGrant& grant) : manager_(manager), grant_(grant) {
    grant.added.resize(static_cast<std::size_t>(manager.num_groups()));
    ends_.resize(grant.added.size());
    for (AddedPages& added : grant.added) added.offsets.push_back(0);
  }

  void before(const Request& request) {
    num_changes_ = request.is_allocated() ? manager_.num_changes(request) : -1;
    for (GroupId group = 0; group < manager_.num_groups(); ++group) {
      ends_[static_cast<std::size_t>(group)] =
          request.is_allocated() ? manager_.page_ids(request, group).size() : 0;
    }
  }

  void after(const Request& request, std::int32_t position) {
    const bool has_changed = manager_.num_changes(request) != num_changes_;
    if (has_changed) grant_.changed_rows.push_back(position);
    for (GroupId group = 0; group < manager_.num_groups(); ++group) {
      AddedPages& added = grant_.added[static_cast<std::size_t>(group)];
      if (has_changed) {
        const auto pages =
            manager_.page_ids(request, group).subspan(ends_[static_cast<std::size_t>(group)]);
        added.ids.insert(added.ids.end(), pages.begin(), pages.end());
      }
      added.offsets.push_back(static_cast<std::int32_t>(added.ids.size()));
    }
  }

 private:
  const CacheManager& manager_;
  StepGrant& grant_;
  std::vector<std::size_t> ends_;
  std::int32_t num_changes_ = 0;
};

}  // namespace

StepGrant allocate_step(CacheManager& manager, std::span<Request* const> requests,
                        const StepDemand& step) {
  constexpr auto kOperation = "CacheManager.allocate_step";
  check_counts(kOperation, "num_new_tokens", step.num_new_tokens.size(), requests.size());
  if (!step.num_cached_tokens.empty()) {
    check_counts(kOperation, "num_cached_tokens", step.num_cached_tokens.size(), requests.size());
  }
  for (std::size_t i = 0; i < requests.size(); ++i) {
    manager.check_demand(*requests[i], demand_of(step, i));
  }
  StepGrant grant;
  RowEnds ends(manager, grant);
  GroupPages prefix;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    Request& request = *requests[i];
    Demand demand = demand_of(step, i);
    if (demand.num_cached_tokens > 0) {
      const std::int32_t found =
          manager.find_again(request, demand.num_cached_tokens, kAnyShard, prefix);
      if (found < demand.num_cached_tokens) break;
      demand.prefix = &prefix;
    }
    ends.before(request);
    if (!manager.allocate(request, demand)) break;
    ends.after(request, grant.num_requests++);
  }
  return grant;
}

void commit_step(CacheManager& manager, std::span<Request* const> requests,
                 std::span<const std::int32_t> num_new_tokens) {
  constexpr auto kOperation = "CacheManager.commit_step";
  check_counts(kOperation, "num_new_tokens", num_new_tokens.size(), requests.size());
  const auto end_of = [&](std::size_t i) {
    return std::int64_t{requests[i]->num_computed_tokens()} + num_new_tokens[i];
  };
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const Request& request = *requests[i];
    if (num_new_tokens[i] < 0) {
      throw_value_error(kOperation, "num_new_tokens must be >= 0, got ", num_new_tokens[i],
                        " for request '", request.request_id(), "'");
    }
    manager.check_commit(request, end_of(i));
  }
  for (std::size_t i = 0; i < requests.size(); ++i) {
    manager.commit(*requests[i], static_cast<std::int32_t>(end_of(i)));
  }
}

}  // namespace pagedkv
