#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "arrays.h"
#include "owning_manager.h"
#include "pagedkv/batch/admission.h"
#include "pagedkv/batch/batch_tables.h"
#include "pagedkv/batch/step.h"
#include "pagedkv/error.h"

// One call for all requests of a scheduler's step: arrays of handles and counts in, arrays out, and
// no Python object a request or a page.
namespace pagedkv {
namespace {

using HandleArray = nb::ndarray<const RequestHandle, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

std::span<const RequestHandle> values_of(const HandleArray& handles) {
  return {handles.data(), handles.shape(0)};
}

std::span<const Request* const> read_only(std::span<Request* const> requests) {
  return {const_cast<const Request* const*>(requests.data()), requests.size()};
}

nb::ndarray<nb::numpy, RequestHandle> add_requests(OwningManager& manager,
                                                   nb::typed<nb::list, Request> requests) {
  constexpr auto kOperation = "CacheManager.add_requests";
  return manager.with_handles(kOperation, [&](CacheManager&, RequestHandles& known) {
    auto handles = std::make_unique<RequestHandle[]>(nb::len(requests));
    std::size_t added = 0;
    try {
      for (nb::handle request : requests) {
        if (!nb::isinstance<Request>(request)) {
          throw nb::type_error(error_message(kOperation, "takes a list of pagedkv.Request, got ",
                                             nb::inst_name(request).c_str())
                                   .c_str());
        }
        handles[added] = known.add(request);
        ++added;
      }
    } catch (...) {
      while (added > 0) known.remove(handles[--added]);
      throw;
    }
    RequestHandle* data = handles.release();
    const nb::capsule owner(data,
                            [](void* p) noexcept { delete[] static_cast<RequestHandle*>(p); });
    return nb::ndarray<nb::numpy, RequestHandle>(data, {added}, owner);
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

Int32Array match_requests(OwningManager& manager, const HandleArray& handles) {
  constexpr auto kOperation = "CacheManager.match_requests";
  Int32Array counts = new_int32_array({handles.shape(0)});
  manager.with_handles(kOperation, [&](CacheManager& core, RequestHandles& known) {
    const auto requests = known.resolve(values_of(handles), kOperation);
    std::int64_t num_pages = 0;
    for (const Request* request : requests) {
      num_pages += request->num_tokens() / core.hash_page_size();
    }
    without_gil_if_long(num_pages, [&] {
      for (std::size_t i = 0; i < requests.size(); ++i) {
        const ExclusiveUse use(requests[i]->use_flag(), kOperation, "request");
        counts.data()[i] = core.match(*requests[i]);
      }
    });
  });
  return counts;
}

Int32Array pages_needed(OwningManager& manager, const HandleArray& handles, nb::handle num_tokens,
                        std::int32_t max_step_tokens, nb::handle num_cached_tokens) {
  constexpr auto kOperation = "CacheManager.num_pages_needed";
  const Int32Input counts(num_tokens, kOperation, "num_tokens");
  std::optional<Int32Input> cached;
  if (!num_cached_tokens.is_none()) {
    cached.emplace(num_cached_tokens, kOperation, "num_cached_tokens");
  }
  Int32Array needed = new_int32_array({handles.shape(0)});
  manager.with_handles(kOperation, [&](const CacheManager& core, RequestHandles& known) {
    const auto requests = known.resolve(values_of(handles), kOperation);
    check_one_each(kOperation, "num_tokens", counts.size(), requests.size());
    if (cached) {
      check_one_each(kOperation, "num_cached_tokens", cached->size(), requests.size());
    }
    for (std::size_t i = 0; i < requests.size(); ++i) {
      needed.data()[i] = num_pages_needed(core, *requests[i],
                                          {.num_tokens = counts[i],
                                           .num_cached_tokens = cached ? (*cached)[i] : 0,
                                           .max_step_tokens = max_step_tokens});
    }
  });
  return needed;
}

StepGrant allocate_requests(OwningManager& manager, const HandleArray& handles,
                            nb::handle num_new_tokens, nb::handle num_cached_tokens,
                            std::int32_t num_lookahead_tokens) {
  constexpr auto kOperation = "CacheManager.allocate_step";
  const Int32Input new_tokens(num_new_tokens, kOperation, "num_new_tokens");
  std::optional<Int32Input> cached_tokens;
  StepDemand demand{new_tokens, {}, num_lookahead_tokens};
  if (!num_cached_tokens.is_none()) {
    cached_tokens.emplace(num_cached_tokens, kOperation, "num_cached_tokens");
    demand.num_cached_tokens = *cached_tokens;
  }
  return manager.with_handles(kOperation, [&](CacheManager& core, RequestHandles& known) {
    return allocate_step(core, known.resolve(values_of(handles), kOperation), demand);
  });
}

void commit_requests(OwningManager& manager, const HandleArray& handles,
                     nb::handle num_new_tokens) {
  constexpr auto kOperation = "CacheManager.commit_step";
  const Int32Input counts(num_new_tokens, kOperation, "num_new_tokens");
  manager.with_handles(kOperation, [&](CacheManager& core, RequestHandles& known) {
    commit_step(core, known.resolve(values_of(handles), kOperation), counts);
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

Int32Array step_tokens(OwningManager& manager, const HandleArray& handles, nb::handle num_tokens) {
  constexpr auto kOperation = "CacheManager.next_tokens";
  const Int32Input counts(num_tokens, kOperation, "num_tokens");
  return manager.with_handles(kOperation, [&](CacheManager&, RequestHandles& known) {
    const auto requests = read_only(known.resolve(values_of(handles), kOperation));
    const std::int32_t size = num_next_tokens(requests, counts);
    Int32Array tokens = new_int32_array({static_cast<std::size_t>(size)});
    fill_next_tokens(requests, counts, span_of(tokens));
    return tokens;
  });
}

Int32Array step_slots(OwningManager& manager, const HandleArray& handles, nb::handle num_tokens,
                      GroupId group) {
  constexpr auto kOperation = "CacheManager.slot_mapping";
  const Int32Input counts(num_tokens, kOperation, "num_tokens");
  return manager.with_handles(kOperation, [&](CacheManager& core, RequestHandles& known) {
    const auto requests = read_only(known.resolve(values_of(handles), kOperation));
    const std::int32_t size = num_slots(core, requests, counts);
    Int32Array slots = new_int32_array({static_cast<std::size_t>(size)});
    fill_slot_mapping(core, requests, counts, group, span_of(slots));
    return slots;
  });
}

Int32Array step_table(OwningManager& manager, const HandleArray& handles,
                      std::optional<std::int32_t> width, GroupId group) {
  constexpr auto kOperation = "CacheManager.page_table";
  if (width && *width < 0) throw_value_error(kOperation, "width must be >= 0, got ", *width);
  return manager.with_handles(kOperation, [&](CacheManager& core, RequestHandles& known) {
    const auto requests = read_only(known.resolve(values_of(handles), kOperation));
    const std::int32_t columns = width ? *width : max_num_pages(core, requests, group);
    Int32Array table = new_int32_array({requests.size(), static_cast<std::size_t>(columns)});
    fill_page_table(core, requests, group, columns, span_of(table));
    return table;
  });
}

const AddedPages& added_in(const StepGrant& grant, GroupId group) {
  if (group >= 0 && std::cmp_less(group, grant.added.size())) {
    return grant.added[static_cast<std::size_t>(group)];
  }
  throw_index_error("StepGrant", "group must be in [0, ", grant.added.size(), "), got ", group);
}

void bind_grant(nb::module_& m) {
  nb::class_<StepGrant>(m, "StepGrant", "What the requests of a step were given.")
      .def_ro("num_requests", &StepGrant::num_requests,
              "The first so many requests have room; nothing was done for the others.")
      .def_prop_ro(
          "changed_rows", [](const StepGrant& grant) { return copy_of(grant.changed_rows); },
          nb::rv_policy::automatic,
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
      .def("match_requests", &match_requests, "handles"_a.noconvert(), R"doc(
As ``match`` for each: how many tokens of its prefix are cached. int32, shape ``[len(handles)]``.

Long prompts are hashed and looked up without Python's lock.

Raises:
  ValueError: As ``match``, and if a handle is of no request, or there twice.
)doc")
      .def("num_pages_needed", &pages_needed, "handles"_a.noconvert(), "num_tokens"_a,
           nb::kw_only(), "max_step_tokens"_a, "num_cached_tokens"_a = nb::none(), R"doc(
Free pages that are enough to start each request, alone, and to compute its first tokens.

Pages of its prefix that other requests hold cost none; cached ones that nobody holds do. Windows and
chunks count with the most pages that they hold at a time. The idea is vLLM's: ``full_sequence_must_fit``
of its ``KVCacheManager.allocate_slots``.

Args:
  handles: int64 ``[n]``, of requests that hold no pages.
  num_tokens: int32 ``[n]``: so many tokens of each, from its first one on, which it need not have yet.
  max_step_tokens: Most tokens of a request that a step computes.
  num_cached_tokens: int32 ``[n]``, from ``match_requests``; 0 for each if None.

Returns:
  int32, shape ``[n]``.

Raises:
  ValueError: If a request holds pages; if ``num_tokens`` is not in 1 to ``max_model_len``; if
    ``max_step_tokens`` is below 1; if ``num_cached_tokens`` is more than is cached; if there is not
    one count a request; if a handle is of no request, or there twice.
)doc")
      .def("allocate_step", &allocate_requests, "handles"_a.noconvert(), "num_new_tokens"_a,
           nb::kw_only(), "num_cached_tokens"_a = nb::none(), "num_lookahead_tokens"_a = 0, R"doc(
As ``allocate`` for each in turn, up to the first that does not fit.

A request whose cached prefix is gone, because one before it has taken the pages, does not fit.

Args:
  handles: int64 ``[n]``, from ``add_requests``.
  num_new_tokens: int32 ``[n]``, each at least 1.
  num_cached_tokens: int32 ``[n]``; 0 for each if None.
  num_lookahead_tokens: Draft tokens of each.

Returns:
  How many have room, and the pages that were added.

Raises:
  ValueError: As ``allocate``; if there is not one count a request; if a handle is of no request, or
    there twice. Then nothing is done.
)doc")
      .def("commit_step", &commit_requests, "handles"_a.noconvert(), "num_new_tokens"_a, R"doc(
As ``commit`` for each, of ``num_new_tokens[i]`` tokens after those computed already.

Args:
  handles: int64 ``[n]``, from ``add_requests``.
  num_new_tokens: int32 ``[n]``, each >= 0.

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
)doc")
      .def("next_tokens", &step_tokens, "handles"_a.noconvert(), "num_tokens"_a, R"doc(
The next ``num_tokens[i]`` tokens of each request after its computed ones, back to back.

Args:
  handles: int64 ``[n]``, from ``add_requests``.
  num_tokens: int32 ``[n]``, each >= 0.

Returns:
  A fresh int32 array, shape ``[sum(num_tokens)]``: a token for each slot of ``slot_mapping``.

Raises:
  ValueError: If a request has fewer tokens; if there is not one count a request; if a handle is of no
    request, or there twice.
)doc")
      .def("slot_mapping", &step_slots, "handles"_a.noconvert(), "num_tokens"_a, "group"_a = 0,
           R"doc(
As with a list of requests, of requests with handles: int64 ``[n]``.
)doc")
      .def("page_table", &step_table, "handles"_a.noconvert(), "width"_a = nb::none(),
           "group"_a = 0, R"doc(
As with a list of requests, of requests with handles: int64 ``[n]``.
)doc");
}

}  // namespace pagedkv
