#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "arrays.h"
#include "owning_manager.h"
#include "pagedkv/batch/admission.h"
#include "pagedkv/batch/step.h"
#include "pagedkv/error.h"
#include "step_arrays.h"

// One call for all requests of a scheduler's step: arrays of handles and counts in, arrays out, and
// no Python object a request or a page.
namespace pagedkv {
namespace {

Int64Array add_requests(OwningManager& manager, nb::typed<nb::list, Request> requests) {
  constexpr auto kOperation = "CacheManager.add_requests";
  return manager.with_handles(kOperation, [&](CacheManager&, RequestHandles& known) {
    Int64Array handles({nb::len(requests)});
    std::size_t added = 0;
    try {
      for (RequestHandle& handle : handles.values()) {
        const nb::object request = requests[added];
        if (!nb::isinstance<Request>(request)) {
          throw nb::type_error(error_message(kOperation, "takes a list of pagedkv.Request, got ",
                                             nb::inst_name(request).c_str())
                                   .c_str());
        }
        handle = known.add(request);
        ++added;
      }
    } catch (...) {
      while (added > 0) known.remove(handles.values()[--added]);
      throw;
    }
    return handles;
  });
}

// Takes the pages of requests back; those that hold none are let be.
void free_pages(OwningManager& manager, CacheManager& core, std::span<Request* const> requests) {
  for (const Request* request : requests) {
    if (request->is_allocated()) core.num_changes(*request);  // throws for another manager's
  }
  for (Request* request : requests) {
    if (!request->is_allocated()) continue;
    core.free(*request);
    manager.let_go(*request);
  }
}

void remove_requests(OwningManager& manager, const HandleArray& handles) {
  constexpr auto kOperation = "CacheManager.remove_requests";
  manager.with_handles(kOperation, [&](CacheManager& core, RequestHandles& known) {
    free_pages(manager, core, known.resolve(values_of(handles), kOperation));
    for (const RequestHandle handle : values_of(handles)) known.remove(handle);
  });
}

void free_requests(OwningManager& manager, const HandleArray& handles) {
  constexpr auto kOperation = "CacheManager.free_requests";
  manager.with_handles(kOperation, [&](CacheManager& core, RequestHandles& known) {
    free_pages(manager, core, known.resolve(values_of(handles), kOperation));
  });
}

// One shard a request, where any are given.
class ShardInput {
 public:
  ShardInput(nb::handle dp_shards, const char* operation) {
    if (!dp_shards.is_none()) values_.emplace(dp_shards, operation, "dp_shards");
  }

  operator std::span<const ShardId>() const {
    return values_ ? std::span<const ShardId>(*values_) : std::span<const ShardId>();
  }

 private:
  std::optional<Int32Input> values_;
};

// Hashes and looks up without Python's lock, if that is long.
template <typename Match>
void match_all(OwningManager& manager, const HandleArray& handles, const char* operation,
               Match match) {
  manager.with_handles(operation, [&](CacheManager& core, RequestHandles& known) {
    const auto requests = known.resolve(values_of(handles), operation);
    std::int64_t num_pages = 0;
    for (const Request* request : requests) {
      num_pages += request->num_tokens() / core.hash_page_size();
    }
    std::deque<ExclusiveUse> uses;
    for (Request* request : requests) uses.emplace_back(request->use_flag(), operation, "request");
    without_gil_if_long(num_pages, [&] { match(core, requests); });
  });
}

Int32Array match_requests(OwningManager& manager, const HandleArray& handles,
                          nb::handle dp_shards) {
  constexpr auto kOperation = "CacheManager.match_requests";
  const ShardInput shards(dp_shards, kOperation);
  Int32Array counts({handles.size()});
  match_all(manager, handles, kOperation, [&](CacheManager& core, auto requests) {
    match_step(core, requests, shards, counts.values());
  });
  return counts;
}

Int32Array match_shards(OwningManager& manager, const HandleArray& handles) {
  const auto num_shards = static_cast<std::size_t>(manager.core().pool().shards().size());
  Int32Array counts({handles.size(), num_shards});
  match_all(manager, handles, "CacheManager.match_shards", [&](CacheManager& core, auto requests) {
    match_step_in_shards(core, requests, counts.values());
  });
  return counts;
}

StepGrant allocate_requests(OwningManager& manager, const HandleArray& handles,
                            nb::handle num_new_tokens, nb::handle num_cached_tokens,
                            std::int32_t num_lookahead_tokens, nb::handle dp_shards,
                            std::int32_t watermark_pages, bool full_sequence_must_fit) {
  constexpr auto kOperation = "CacheManager.allocate_step";
  const Int32Input new_tokens(num_new_tokens, kOperation, "num_new_tokens");
  std::optional<Int32Input> cached_tokens;
  const ShardInput shards(dp_shards, kOperation);
  StepDemand demand{
      new_tokens, {}, num_lookahead_tokens, shards, watermark_pages, full_sequence_must_fit};
  if (!num_cached_tokens.is_none()) {
    cached_tokens.emplace(num_cached_tokens, kOperation, "num_cached_tokens");
    demand.num_cached_tokens = *cached_tokens;
  }
  return manager.with_handles(kOperation, [&](CacheManager& core, RequestHandles& known) {
    return allocate_step(core, known.resolve(values_of(handles), kOperation), demand);
  });
}

std::optional<Int32Array> commit_requests(OwningManager& manager, const HandleArray& handles,
                                          nb::handle num_new_tokens) {
  constexpr auto kOperation = "CacheManager.commit_step";
  const Int32Input counts(num_new_tokens, kOperation, "num_new_tokens");
  return manager.with_handles(
      kOperation, [&](CacheManager& core, RequestHandles& known) -> std::optional<Int32Array> {
        const auto changed =
            commit_step(core, known.resolve(values_of(handles), kOperation), counts);
        return core.deduplicate() ? std::optional(copy_of(changed)) : std::nullopt;
      });
}

void append_tokens(OwningManager& manager, const HandleArray& handles, nb::handle tokens) {
  constexpr auto kOperation = "CacheManager.append_tokens";
  const Int32Input added(tokens, kOperation, "tokens");
  manager.with_handles(kOperation, [&](CacheManager&, RequestHandles& known) {
    const auto requests = known.resolve(values_of(handles), kOperation);
    check_one_each(kOperation, "tokens", added.size(), requests.size());
    for (std::size_t i = 0; i < requests.size(); ++i) requests[i]->append(added[i]);
  });
}

void truncate_requests(OwningManager& manager, const HandleArray& handles, nb::handle num_tokens) {
  constexpr auto kOperation = "CacheManager.truncate_requests";
  const Int32Input counts(num_tokens, kOperation, "num_tokens");
  manager.with_handles(kOperation, [&](CacheManager&, RequestHandles& known) {
    const auto requests = known.resolve(values_of(handles), kOperation);
    check_one_each(kOperation, "num_tokens", counts.size(), requests.size());
    for (std::size_t i = 0; i < requests.size(); ++i) requests[i]->check_truncate(counts[i]);
    for (std::size_t i = 0; i < requests.size(); ++i) requests[i]->truncate(counts[i]);
  });
}

const AddedPages& added_in(const StepGrant& grant, GroupId group) {
  return of_group(grant.added, group, "StepGrant");
}

void bind_grant(nb::module_& m) {
  nb::class_<StepGrant>(m, "StepGrant", "What the requests of a step were given.")
      .def_ro("num_requests", &StepGrant::num_requests,
              "The first so many requests have room; nothing was done for the others.")
      .def_prop_ro(
          "changed_rows", [](const StepGrant& grant) { return copy_of(grant.changed_rows); },
          "Positions of the requests whose page table rows changed in any group: int32, rising.")
      .def(
          "new_page_ids",
          [](const StepGrant& grant, GroupId group) { return copy_of(added_in(grant, group).ids); },
          "group"_a = 0,
          "Pages that were added to the rows, those of cached prefixes among them: int32 ``[n]``.")
      .def(
          "new_page_offsets",
          [](const StepGrant& grant, GroupId group) {
            return copy_of(added_in(grant, group).offsets);
          },
          "group"_a = 0, R"doc(
Where each request's are in ``new_page_ids``: those of request ``i`` are from entry ``i`` on to before
entry ``i + 1``. int32 ``[num_requests + 1]``.
)doc");
}

}  // namespace

void bind_step_calls(nb::module_& m, nb::class_<OwningManager>& manager) {
  bind_grant(m);
  manager
      .def("add_requests", &add_requests, "requests"_a, R"doc(
Gives each of a list of `Request` a handle, for the calls that take a whole step.

The manager keeps a reference to them until ``remove_requests``.

Returns:
  int64, shape ``[len(requests)]``.

Raises:
  TypeError: If one is not a `Request`.
  ValueError: If one has a handle already. Then none has got one.
)doc")
      .def("remove_requests", &remove_requests, "handles"_a.noconvert(), R"doc(
Takes the pages of requests back, and forgets them. Their handles are refused from now on.

Raises:
  ValueError: If a handle is of no request, or there twice; or if a request holds pages of another
    manager. Then nothing is done.
)doc")
      .def("match_requests", &match_requests, "handles"_a.noconvert(), nb::kw_only(),
           "dp_shards"_a = nb::none(), R"doc(
As ``match`` for each: how many tokens of its prefix are cached. int32, shape ``[len(handles)]``.

Prompts are hashed two at a time. Long ones are hashed and looked up without Python's lock.

Args:
  handles: int64 ``[n]``, or a list, from ``add_requests``.
  dp_shards: int32 ``[n]``: the data-parallel shard in which each is looked for, -1 for anywhere.

Raises:
  ValueError: As ``match``; if there is not one shard a request; if a handle is of no request, or
    there twice.
  IndexError: If a shard is none.
)doc")
      .def("match_shards", &match_shards, "handles"_a.noconvert(), R"doc(
How many tokens of each request's prefix are cached in each data-parallel shard.

For schedulers that choose the shard that holds most: int32, shape
``[len(handles), data_parallel_size]``.

Raises:
  ValueError: As ``match_requests``.
)doc")
      .def(
          "max_pages_per_request",
          [](const OwningManager& self, std::int32_t num_tokens, std::int32_t max_new_tokens,
             std::int32_t num_lookahead_tokens, std::int32_t num_encoder_tokens) {
            return max_pages_per_request(self.core(),
                                         {num_tokens, num_lookahead_tokens, num_encoder_tokens},
                                         max_new_tokens);
          },
          "num_tokens"_a, nb::kw_only(), "max_new_tokens"_a, "num_lookahead_tokens"_a = 0,
          "num_encoder_tokens"_a = 0, R"doc(
Most pages that a request holds at a time, in all groups, until ``num_tokens`` tokens are computed.

One that has the pool to itself, and as many pages, always gets room: a scheduler can refuse, before it
takes a request on, what would never finish.

Args:
  num_tokens: Prompt and longest answer: 1 to ``max_model_len``.
  max_new_tokens: Most tokens of a step.
  num_lookahead_tokens: Draft tokens of a step.
  num_encoder_tokens: Tokens of the encoder's output.

Raises:
  ValueError: If a number is out of range.
)doc")
      .def("allocate_step", &allocate_requests, "handles"_a.noconvert(), "num_new_tokens"_a,
           nb::kw_only(), "num_cached_tokens"_a = nb::none(), "num_lookahead_tokens"_a = 0,
           "dp_shards"_a = nb::none(), "watermark_pages"_a = 0, "full_sequence_must_fit"_a = false,
           R"doc(
As ``allocate`` for each in turn, up to the first that does not fit.

A request whose cached prefix is gone, because one before it has taken the pages, does not fit.

Args:
  handles: int64 ``[n]``, or a list, from ``add_requests``.
  num_new_tokens: int32 ``[n]``, each at least 1.
  num_cached_tokens: int32 ``[n]``; 0 for each if None.
  num_lookahead_tokens: Draft tokens of each.
  dp_shards: int32 ``[n]``: the shard that each gets pages from, -1 for anywhere.
  watermark_pages: As in ``allocate``, of the requests that hold no pages yet.
  full_sequence_must_fit: As in ``allocate``, of the requests that hold no pages yet.

Returns:
  How many have room, and the pages that were added.

Raises:
  ValueError: As ``allocate``; if there is not one count a request; if a handle is of no request, or
    there twice. Then nothing is done.
)doc")
      .def("commit_step", &commit_requests, "handles"_a.noconvert(), "num_new_tokens"_a, R"doc(
As ``commit`` for each, of ``num_new_tokens[i]`` tokens after those computed already.

Args:
  handles: int64 ``[n]``, or a list, from ``add_requests``.
  num_new_tokens: int32 ``[n]``, each >= 0.

Returns:
  In a manager with ``deduplicate``, positions of the requests whose page table rows changed: int32,
  rising. None in others, where no row changes.

Raises:
  ValueError: As ``commit``; if there is not one count a request; if a handle is of no request, or
    there twice. Then nothing is done.
)doc")
      .def("append_tokens", &append_tokens, "handles"_a.noconvert(), "tokens"_a, R"doc(
Appends ``tokens[i]``, int32 ``[n]``, to each request.

Raises:
  ValueError: If there is not one token a request; if a handle is of no request, or there twice.
)doc")
      .def("truncate_requests", &truncate_requests, "handles"_a.noconvert(), "num_tokens"_a, R"doc(
As ``Request.truncate`` for each, to ``num_tokens[i]`` tokens, int32 ``[n]``: takes off draft tokens
that were rejected.

Raises:
  ValueError: As ``truncate``; if there is not one count a request; if a handle is of no request, or
    there twice. Then nothing is done.
)doc")
      .def("free_requests", &free_requests, "handles"_a.noconvert(), R"doc(
As ``free`` for each in turn that holds pages. They keep their handles.

Raises:
  ValueError: If a handle is of no request, or there twice; or if a request holds pages of another
    manager. Then nothing is done.
)doc");
}

}  // namespace pagedkv
