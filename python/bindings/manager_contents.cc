#include <nanobind/stl/string.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "bindings.h"
#include "owning_manager.h"
#include "pagedkv/error.h"

// What a manager holds, counted, named and saved.
namespace pagedkv {
namespace {

void bind_stats(nb::module_& m) {
  using Stats = ManagerStats;
  nb::class_<Stats>(m, "ManagerStats", R"doc(
What a `CacheManager` holds now, and what has happened since it was made. A copy: it does not change.

``num_pages_allocated + num_pages_reused - num_pages_freed == num_held_pages``.
)doc")
      .def_ro("num_held_pages", &Stats::num_held_pages, "Pages that a request holds now.")
      .def_prop_ro(
          "peak_held_pages", [](const Stats& s) { return s.pool.peak_held; },
          "Most pages that were held at a time.")
      .def_ro("num_requests", &Stats::num_requests, "Requests that hold pages now.")
      .def_ro("peak_requests", &Stats::peak_requests, "Most requests that held pages at a time.")
      .def_prop_ro(
          "num_pages_allocated", [](const Stats& s) { return s.pool.num_allocated; },
          "Times a free page was handed out empty.")
      .def_prop_ro(
          "num_pages_reused", [](const Stats& s) { return s.pool.num_reused; },
          "Times a free page was held again for what it contains: a hit.")
      .def_prop_ro(
          "num_pages_freed", [](const Stats& s) { return s.pool.num_freed; },
          "Times the last holder gave a page back.")
      .def_prop_ro(
          "num_pages_cached", [](const Stats& s) { return s.pool.num_cached; },
          "Times a page was made findable by the request that computed it.")
      .def_prop_ro(
          "num_pages_evicted", [](const Stats& s) { return s.pool.num_evicted; },
          "Times a page lost its content because it was handed out again.")
      .def_ro("num_failed_allocations", &Stats::num_failed_allocations,
              "Times that too few pages were free: ``allocate`` returned False.")
      .def_ro("num_admitted", &Stats::num_admitted,
              "Times that a request was given its first pages, forks aside. One that was preempted "
              "counts again when it comes back.")
      .def_ro("num_query_tokens", &Stats::num_query_tokens,
              "Tokens that those requests had, if caching is on.")
      .def_ro("num_hit_tokens", &Stats::num_hit_tokens,
              "Tokens of those that came from the prefix cache.")
      .def("__repr__", [](nb::handle self) {
        std::string text;
        for (const char* name :
             {"num_held_pages", "peak_held_pages", "num_requests", "peak_requests",
              "num_pages_allocated", "num_pages_reused", "num_pages_freed", "num_pages_cached",
              "num_pages_evicted", "num_failed_allocations", "num_admitted", "num_query_tokens",
              "num_hit_tokens"}) {
          text += (text.empty() ? "" : ", ") + std::string(name) + "=" +
                  nb::repr(self.attr(name)).c_str();
        }
        return "ManagerStats(" + text + ")";
      });
}

void assert_no_leaks(const OwningManager& manager) {
  constexpr std::size_t kMostNamed = 10;
  const std::vector<Holding> holdings = manager.core().holdings();
  if (holdings.empty()) return;
  std::string names;
  for (const Holding& each : std::span(holdings).first(std::min(holdings.size(), kMostNamed))) {
    names +=
        (names.empty() ? "'" : ", '") + each.request_id + "' " + std::to_string(each.num_pages);
  }
  if (holdings.size() > kMostNamed) {
    names += " and " + std::to_string(holdings.size() - kMostNamed) + " more";
  }
  const std::string message = error_message("CacheManager.assert_no_leaks", holdings.size(),
                                            " requests still hold pages: ", names);
  PyErr_SetString(PyExc_AssertionError, message.c_str());
  throw nb::python_error();
}

}  // namespace

void bind_manager_contents(nb::module_& m, nb::class_<OwningManager>& manager) {
  bind_stats(m);
  manager
      .def(
          "stats", [](const OwningManager& self) { return self.core().stats(); }, R"doc(
What is held now, and what has happened since the manager was made. O(1).
)doc")
      .def("assert_no_leaks", &assert_no_leaks, R"doc(
For tests of engines: when all requests are done, none may hold pages.

Raises:
  AssertionError: If one does, naming it and the number of its pages.
)doc")
      .def(
          "snapshot",
          [](OwningManager& self) {
            const auto bytes = self.with_core(
                "CacheManager.snapshot", [](const CacheManager& core) { return core.snapshot(); });
            return nb::bytes(bytes.data(), bytes.size());
          },
          R"doc(
All cached content by its digests, and the order of eviction, as bytes for ``restore``.

The contents of the page tensors are not among it: save them too, or keep them. Pages that requests
hold count as if every request was freed now. docs/snapshots.md has the format. O(pages).
)doc")
      .def(
          "restore",
          [](OwningManager& self, nb::bytes snapshot) {
            const std::span bytes(static_cast<const std::byte*>(snapshot.data()), snapshot.size());
            self.with_core("CacheManager.restore",
                           [&](CacheManager& core) { core.restore(bytes); });
          },
          "snapshot"_a, R"doc(
Makes findable what was cached when ``snapshot`` was made, with the same order of eviction.

The page tensors must have in each page what they had then. The number of shards may be another one.

Raises:
  ValueError: If the bytes are no snapshot, damaged, or of another version; if it was made with other
    ``num_pages``, groups, hash algorithm, seed or ``hash_page_size``; if caching is off, or anything
    is held or cached here. Then nothing is done.

Example:

    >>> spec = FullAttentionSpec(page_size=4, num_kv_heads=1, head_size=64, dtype="bfloat16")
    >>> before, after = (CacheManager(16, [CacheGroupSpec(spec)], max_model_len=64) for _ in range(2))
    >>> request = Request("a", range(10))
    >>> before.allocate(request, 10)
    True
    >>> before.commit(request, 10)
    False
    >>> after.restore(before.snapshot())
    >>> after.match(Request("b", range(10)))
    8
)doc");
}

}  // namespace pagedkv
