#include <nanobind/stl/optional.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "arrays.h"
#include "bindings.h"
#include "owning_manager.h"
#include "pagedkv/batch/batch_tables.h"
#include "pagedkv/error.h"

namespace pagedkv {
namespace {

int traverse_manager(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  if (!nb::inst_ready(self)) return 0;
  return nb::inst_ptr<OwningManager>(self)->traverse(visit, arg);
}

int clear_manager(PyObject* self) {
  if (nb::inst_ready(self)) nb::inst_ptr<OwningManager>(self)->clear();
  return 0;
}

PyType_Slot kManagerSlots[] = {
    {Py_tp_traverse, reinterpret_cast<void*>(traverse_manager)},
    {Py_tp_clear, reinterpret_cast<void*>(clear_manager)},
    {0, nullptr},
};

FreeOrder free_order_named(std::string_view name) {
  if (name == "lru") return FreeOrder::kLru;
  if (name == "uncached_first") return FreeOrder::kUncachedFirst;
  throw_value_error("CacheManager", "free_order must be lru or uncached_first, got ", name);
}

using Requests = std::vector<const Request*>;

// Python has None for any shard, and no number.
ShardId shard_of(const OwningManager& manager, const char* operation,
                 std::optional<ShardId> dp_shard) {
  if (dp_shard == kAnyShard) {
    throw_index_error(operation, "shard must be in [0, ", manager.core().pool().shards().size(),
                      "), got ", *dp_shard);
  }
  return dp_shard.value_or(kAnyShard);
}

Int32Array page_table(const OwningManager& manager, const Requests& requests,
                      std::optional<std::int32_t> width, GroupId group) {
  if (width && *width < 0) {
    throw_value_error("CacheManager.page_table", "width must be >= 0, got ", *width);
  }
  const std::int32_t columns = width ? *width : max_num_pages(manager.core(), requests, group);
  Int32Array table({requests.size(), static_cast<std::size_t>(columns)});
  fill_page_table(manager.core(), requests, group, columns, table.values());
  return table;
}

Int32Array slot_mapping(const OwningManager& manager, const Requests& requests,
                        nb::handle num_tokens, GroupId group) {
  const auto counts = int32_values(num_tokens, "CacheManager.slot_mapping", "num_tokens");
  const std::int32_t size = num_slots(manager.core(), requests, counts);
  Int32Array slots({static_cast<std::size_t>(size)});
  fill_slot_mapping(manager.core(), requests, counts, group, slots.values());
  return slots;
}

void bind_life_of_a_request(nb::class_<OwningManager>& manager) {
  manager
      .def(
          "match",
          [](OwningManager& self, Request& request, std::optional<ShardId> dp_shard) {
            return self.match(request, shard_of(self, "CacheManager.match", dp_shard));
          },
          "request"_a, nb::kw_only(), "dp_shard"_a = nb::none(), R"doc(
Tokens of the longest prefix of ``request`` that is cached in every group, as far as each needs it.

A multiple of ``prefix_unit``, and less than ``request.num_tokens``: one token is left to compute the
next from. 0 for a request that holds pages. Holds nothing: the pages may go until ``allocate``.
Long prompts are hashed and looked up without Python's lock.

Args:
  request: Holds no pages yet.
  dp_shard: Only pages of this data-parallel shard count; all do if None.

Raises:
  ValueError: If the request has extra keys that the hash algorithm does not take.
  IndexError: If ``dp_shard`` is not a shard.
  RuntimeError: If another thread uses the manager or the request.
)doc")
      .def(
          "allocate",
          [](OwningManager& self, Request& request, std::int32_t num_new_tokens,
             std::int32_t num_cached_tokens, std::int32_t num_lookahead_tokens,
             std::optional<ShardId> dp_shard, std::int32_t watermark_pages,
             bool full_sequence_must_fit) {
            return self.allocate(request,
                                 {.num_new_tokens = num_new_tokens,
                                  .num_cached_tokens = num_cached_tokens,
                                  .num_lookahead_tokens = num_lookahead_tokens,
                                  .shard = shard_of(self, "CacheManager.allocate", dp_shard),
                                  .watermark_pages = watermark_pages,
                                  .full_sequence_must_fit = full_sequence_must_fit});
          },
          "request"_a, "num_new_tokens"_a, nb::kw_only(), "num_cached_tokens"_a = 0,
          "num_lookahead_tokens"_a = 0, "dp_shard"_a = nb::none(), "watermark_pages"_a = 0,
          "full_sequence_must_fit"_a = false, R"doc(
Makes room for ``num_new_tokens`` tokens after those computed, and for draft tokens after those.

Pages that a group needs no more are given back first: those a sliding window has left behind, those
of earlier chunks, states that were replaced. The null page, 0, stands for them in page tables.

The first call of a request takes the first ``num_cached_tokens`` of its prefix from the cache, as
``match`` found them; they count as computed.

Args:
  request: Holds pages of this manager, or none.
  num_new_tokens: At least 1. With the computed tokens at most ``request.num_tokens``, and at most
    ``max_model_len``.
  num_cached_tokens: What ``match`` gave, or a smaller multiple of ``prefix_unit`` that is cached
    as well. 0 for a request that holds pages.
  num_lookahead_tokens: Draft tokens, which the request need not have yet, as far as
    ``max_model_len`` allows.
  dp_shard: Where new pages come from; anywhere if None. A request stays in the shard that its
    pages are in, whatever is given here.
  watermark_pages: Pages that must stay free if the request takes any: when a new request is let
    in, what the running ones are going to need.
  full_sequence_must_fit: Return False unless all tokens of the request would fit now, as far as each
    group keeps them, though room is made for the new ones alone (the idea is vLLM's).

Returns:
  False if too few pages are free: then nothing is done.

Raises:
  ValueError: If a count is out of range, if the prefix is no longer cached, or if the request
    holds pages of another manager.
  IndexError: If ``dp_shard`` is not a shard.
)doc")
      .def("commit", &OwningManager::commit, "request"_a, "num_computed_tokens"_a, R"doc(
Says that the K/V of the first ``num_computed_tokens`` tokens is in the pages.

Call it when the step that computes them is launched, before anything that reads the pages is: from
now on other requests find the full pages.

Returns:
  Whether a row of the page table has changed, which it may in a manager with ``deduplicate``.

Raises:
  ValueError: If the request holds no pages, has no room for that many tokens, or has more computed.
)doc")
      .def("free", &OwningManager::free, "request"_a, R"doc(
Gives all pages of ``request`` back; its last page is evicted first.

Raises:
  ValueError: If the request holds no pages: freed twice, or never allocated.
)doc");
}

void bind_arrays(nb::class_<OwningManager>& manager) {
  manager
      .def(
          "page_ids",
          [](const OwningManager& self, const Request& request, GroupId group) {
            return copy_of(self.core().page_ids(request, group));
          },
          "request"_a, "group"_a = 0, R"doc(
The pages of ``request`` in order: int32, shape ``[pages]``.

Raises:
  ValueError: If the request holds no pages.
  IndexError: If ``group`` is not a group.
)doc")
      .def(
          "num_allocated_tokens",
          [](const OwningManager& self, const Request& request) {
            return self.core().num_allocated_tokens(request);
          },
          "request"_a, "Tokens that ``request`` was given room for; 0 if it holds no pages.")
      .def(
          "num_common_prefix_pages",
          [](const OwningManager& self, const Request& request, std::int32_t num_requests,
             GroupId group) {
            return self.core().num_common_prefix_pages(request, group, num_requests);
          },
          "request"_a, "num_requests"_a, "group"_a = 0, R"doc(
Leading pages of ``request`` that at least ``num_requests`` requests hold.

0 in groups that do not read their whole prefix.

Raises:
  ValueError: If the request holds no pages, or ``num_requests`` is below 1.
  IndexError: If ``group`` is not a group.
)doc")
      .def("page_table", &page_table, "requests"_a, "width"_a = nb::none(), "group"_a = 0, R"doc(
Page ids of a batch: row ``i`` holds those of ``requests[i]``, padded with 0, the null page.

Args:
  requests: Each holds pages.
  width: Columns; the longest row's length if None.
  group: Whose pages.

Returns:
  A fresh int32 array, shape ``[len(requests), width]``.

Raises:
  ValueError: If a request holds no pages, or more than ``width``.
  IndexError: If ``group`` is not a group.
)doc")
      .def("slot_mapping", &slot_mapping, "requests"_a, "num_tokens"_a, "group"_a = 0, R"doc(
Where the K/V of the next tokens goes: ``page_id * page_size + offset`` of each.

For each request in turn, the slots of the ``num_tokens[i]`` tokens after its computed ones.

Args:
  requests: Each holds pages.
  num_tokens: Integers, shape ``[len(requests)]``, each >= 0.
  group: Whose pages.

Returns:
  A fresh int32 array, shape ``[sum(num_tokens)]``.

Raises:
  ValueError: If there is not one count a request, or no room for that many tokens.
  IndexError: If ``group`` is not a group.
)doc");
}

void bind_state(nb::class_<OwningManager>& manager) {
  const auto pool = [](const OwningManager& self) -> const PagePool& { return self.core().pool(); };
  manager
      .def_prop_ro(
          "num_pages", [=](const OwningManager& m) { return pool(m).num_pages(); },
          "All pages, the null page among them.")
      .def_prop_ro("num_free_pages",
                   [=](const OwningManager& m) { return pool(m).num_free_pages(); })
      .def_prop_ro(
          "num_cached_pages", [=](const OwningManager& m) { return pool(m).num_cached_pages(); },
          "Pages whose content can be found, held or free, duplicates included.")
      .def_prop_ro(
          "num_evictions", [=](const OwningManager& m) { return pool(m).num_evictions(); },
          "Times a page lost its content because it was handed out again.")
      .def_prop_ro(
          "data_parallel_size", [=](const OwningManager& m) { return pool(m).shards().size(); },
          "Shards of the pool: contiguous ranges of page ids of equal size.")
      .def_prop_ro("page_pool", &OwningManager::pool, "The pool, to look at.")
      .def_prop_ro("num_groups", [](const OwningManager& m) { return m.core().num_groups(); })
      .def_prop_ro(
          "num_requests", [](const OwningManager& m) { return m.core().num_requests(); },
          "Requests that hold pages.")
      .def_prop_ro(
          "page_size", [](const OwningManager& m) { return m.core().policy(0).page_size(); },
          "Tokens a page of the first group holds.")
      .def_prop_ro(
          "page_sizes",
          [](const OwningManager& m) {
            std::vector<std::int32_t> sizes;
            for (GroupId group = 0; group < m.core().num_groups(); ++group) {
              sizes.push_back(m.core().policy(group).page_size());
            }
            return sizes;
          },
          "Tokens a page holds, of each group.")
      .def_prop_ro(
          "hash_page_size", [](const OwningManager& m) { return m.core().hash_page_size(); },
          "Tokens of the pages that requests are hashed in: divides every group's page size.")
      .def_prop_ro(
          "prefix_unit", [](const OwningManager& m) { return m.core().prefix_unit(); },
          "What every shared prefix is a multiple of, in tokens: the page size, if all groups have "
          "one.")
      .def_prop_ro("use_eagle", [](const OwningManager& m) { return m.core().use_eagle(); })
      .def_prop_ro("max_model_len", [](const OwningManager& m) { return m.core().max_model_len(); })
      .def_prop_ro(
          "hasher", [](const OwningManager& m) { return m.core().hasher(); },
          "How pages are named.")
      .def_prop_ro("enable_caching",
                   [](const OwningManager& m) { return m.core().enable_caching(); })
      .def_prop_ro(
          "usage",
          [=](const OwningManager& m) {
            return 1.0 - static_cast<double>(pool(m).num_free_pages()) / pool(m).num_pages();
          },
          "Share of the pages that is not free, from 0 to 1. The null page counts as used.")
      .def("reset_prefix_cache", &OwningManager::reset_prefix_cache,
           "Forgets all cached content. Returns False and does nothing while a request or a pin "
           "holds "
           "pages.")
      .def(
          "check_invariants", [](const OwningManager& m) { m.core().check_invariants(); },
          "Raises RuntimeError naming what does not hold. For tests.");
}

}  // namespace

void bind_manager(nb::module_& m) {
  nb::class_<OwningManager> manager(m, "CacheManager", nb::type_slots(kManagerSlots), R"doc(
Decides which page every token of every request lives in.

A request's life: ``match`` finds the longest cached prefix, ``allocate`` takes it and makes room
for the tokens of the next step, ``commit`` says that their K/V is computed (only now can others
find it), and so on; ``free`` gives the pages back. The manager keeps a reference to each request
that holds pages.

Not thread-safe: a call that another thread's call is in the way of raises RuntimeError. Counters and
tables may be read at any time. Deterministic: the same calls give the same page ids. A call that raises, and an
``allocate`` that returns False, leave everything as it was.
)doc");
  manager.def(
      "__init__",
      [](OwningManager* self, PageId num_pages, const std::vector<CacheGroupSpec>& kv_cache_groups,
         std::int32_t max_model_len, bool enable_caching, bool use_eagle,
         std::string_view hash_algorithm, std::optional<std::string_view> hash_seed,
         std::optional<std::int32_t> hash_page_size, std::int32_t data_parallel_size,
         bool as_easydel, bool deduplicate, std::string_view free_order, bool prefer_contiguous) {
        const PageHasher hasher(hash_algorithm_named(hash_algorithm),
                                hash_seed.value_or(kDefaultHashSeed));
        new (self) OwningManager(num_pages, kv_cache_groups, max_model_len,
                                 {.enable_caching = enable_caching,
                                  .use_eagle = use_eagle,
                                  .hasher = hasher,
                                  .hash_page_size = hash_page_size,
                                  .num_shards = data_parallel_size,
                                  .deduplicate = deduplicate,
                                  .as_easydel = as_easydel,
                                  .free_order = free_order_named(free_order),
                                  .prefer_contiguous = prefer_contiguous});
      },
      "num_pages"_a, "kv_cache_groups"_a, "max_model_len"_a, "enable_caching"_a = true,
      "use_eagle"_a = false, nb::kw_only(), "hash_algorithm"_a = "sha256_cbor",
      "hash_seed"_a = nb::none(), "hash_page_size"_a = nb::none(), "data_parallel_size"_a = 1,
      "as_easydel"_a = false, "deduplicate"_a = false, "free_order"_a = "lru",
      "prefer_contiguous"_a = false, R"doc(
Makes an empty cache.

Args:
  num_pages: Pages of the pool, the null page among them.
  kv_cache_groups: Groups of layers, of any mix of attention types and page sizes; all share the
    pool, each has its own page tables.
  max_model_len: Most tokens a request may have.
  enable_caching: Whether requests find each other's pages.
  use_eagle: Leave the last ``prefix_unit`` tokens of every hit to be computed again, for draft heads
    that need the hidden states of the last tokens (EAGLE).
  hash_algorithm: How pages are named, one of ``hash_algorithms()``; see ``PageHasher``.
  hash_seed: Caches with different seeds share nothing. vLLM's default if None.
  hash_page_size: Tokens of the pages that requests are hashed in. If None, the largest that divides
    every group's page size.
  data_parallel_size: Shards of the pool: contiguous ranges of page ids of equal size.
  as_easydel: Give the same pages as EasyDeL 0.3.0, one by one, also where that is more than needed.
  deduplicate: ``commit`` lets go of a page whose content another page holds already, in favour of
    that one. Otherwise requests that compute the same prefix at the same time keep a copy each, and
    page tables only ever grow (as vLLM's do).
  free_order: Which free pages are allocated first: "lru", those that were given back first, or
    "uncached_first", those without content first, as in vLLM.
  prefer_contiguous: Give the pages of each call in rising order, and take pages right after a
    request's last where those are free and without content. Rows then have fewer contiguous runs.

Raises:
  ValueError: If a size is below 1, ``data_parallel_size`` does not divide ``num_pages``, there are no groups, ``hash_page_size`` does not divide every
    group's page size, slots (``num_pages * page_size``) do not fit in int32, the algorithm or the
    order is unknown, or ``as_easydel`` is given with another order or ``prefer_contiguous``.

Example:

    >>> spec = FullAttentionSpec(page_size=4, num_kv_heads=1, head_size=64, dtype="bfloat16")
    >>> manager = CacheManager(16, [CacheGroupSpec(spec)], max_model_len=64)
    >>> first = Request("first", range(10))
    >>> manager.allocate(first, 10), manager.page_ids(first).tolist()
    (True, [1, 2, 3])
    >>> manager.commit(first, 10)
    False
    >>> second = Request("second", range(10))
    >>> manager.match(second)
    8
    >>> manager.allocate(second, 2, num_cached_tokens=8), manager.page_ids(second).tolist()
    (True, [1, 2, 4])
)doc");
  bind_step_calls(m, manager);  // first: an array of handles would be tried as a list of requests
  bind_step_tables(manager);
  bind_fork_calls(m, manager);
  bind_life_of_a_request(manager);
  bind_arrays(manager);
  bind_state(manager);
  bind_retention_calls(manager);
  bind_scheduler_calls(manager);
  bind_manager_contents(m, manager);
  bind_page_map(m, manager);
  bind_recording(manager);
  bind_event_calls(manager);
  bind_residency_calls(m, manager);
}

}  // namespace pagedkv
