#include "pool.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include <cstring>
#include <optional>
#include <utility>

#include "arrays.h"
#include "bindings.h"
#include "digests.h"
#include "pagedkv/error.h"

namespace pagedkv {

namespace {

const PagePool& pool_of(const PagePool& pool) { return pool; }
const PagePool& pool_of(const PagePoolView& view) { return *view.pool; }

// What can be asked of a pool, whoever owns it.
template <typename Pool>
void bind_questions(nb::class_<Pool>& pool) {
  pool.def_prop_ro(
          "num_pages", [](const Pool& p) { return pool_of(p).num_pages(); },
          "All pages, the null page among them.")
      .def_prop_ro("num_free_pages", [](const Pool& p) { return pool_of(p).num_free_pages(); })
      .def_prop_ro(
          "num_cached_pages", [](const Pool& p) { return pool_of(p).num_cached_pages(); },
          "Pages whose content can be found, held or free, duplicates included.")
      .def_prop_ro(
          "num_cached_keys", [](const Pool& p) { return pool_of(p).num_cached_keys(); },
          "Distinct (digest, group) keys among the cached pages.")
      .def_prop_ro(
          "num_evictions", [](const Pool& p) { return pool_of(p).num_evictions(); },
          "Times a page lost its content because it was handed out again.")
      .def_prop_ro(
          "num_shards", [](const Pool& p) { return pool_of(p).shards().size(); },
          "Data-parallel shards: contiguous ranges of page ids of equal size.")
      .def(
          "free_pages", [](const Pool& p) { return copy_of(pool_of(p).free_pages()); },
          "The free pages, int32, shape ``[num_free_pages]``: those first that are evicted first.")
      .def(
          "ref_count", [](const Pool& p, PageId page) { return pool_of(p).ref_count(page); },
          "page"_a, R"doc(
How many requests hold ``page``.

Raises:
  IndexError: If ``page`` is not in ``[0, num_pages)``.
)doc")
      .def(
          "is_cached", [](const Pool& p, PageId page) { return pool_of(p).is_cached(page); },
          "page"_a, R"doc(
Whether the content of ``page`` can be found.

Raises:
  IndexError: If ``page`` is not in ``[0, num_pages)``.
)doc")
      .def(
          "digest",
          [](const Pool& p, PageId page) -> std::optional<std::pair<nb::bytes, GroupId>> {
            const GroupId group = pool_of(p).group(page);
            if (group == kNoGroup) return std::nullopt;
            const PageHash& hash = pool_of(p).digest(page);
            return std::pair(nb::bytes(hash.bytes.data(), hash.bytes.size()), group);
          },
          "page"_a, R"doc(
What the content of ``page`` is found by: its digest, padded with zeros to 32 bytes, and its group;
None if it cannot be found.

Raises:
  IndexError: If ``page`` is not in ``[0, num_pages)``.
)doc")
      .def(
          "term",
          [](const Pool& p, PageId page) {
            const RetentionTerm term = pool_of(p).term(page);
            return nb::make_tuple(
                term.priority,
                term.ttl == RetentionTerm::kForever ? nb::none() : nb::object(nb::int_(term.ttl)),
                term.tenant == kNoTenant ? nb::none() : nb::object(nb::int_(term.tenant)));
          },
          "page"_a, nb::sig("def term(self, page: int) -> tuple[int, int | None, int | None]"),
          R"doc(
What ``page`` is kept on: priority, time limit and tenant. ``(50, None, None)`` if nobody asked.

Raises:
  IndexError: If ``page`` is not in ``[0, num_pages)``.
)doc")
      .def(
          "find",
          [](const Pool& p, nb::bytes digest, GroupId group,
             std::optional<ShardId> shard) -> std::optional<PageId> {
            const PagePool& found = pool_of(p);
            if (shard && (*shard < 0 || *shard >= found.shards().size())) {
              throw_index_error("PagePool.find", "shard must be in [0, ", found.shards().size(),
                                "), got ", *shard);
            }
            const PageId page = found.find(any_page_hash_of(digest, "PagePool.find"), group,
                                           shard.value_or(kAnyShard));
            return page == kNoPage ? std::nullopt : std::optional(page);
          },
          "digest"_a, "group"_a = 0, "shard"_a = nb::none(), R"doc(
The oldest page whose content has this digest in ``group``, or None. With ``shard``, only its pages
count.

Raises:
  ValueError: If ``digest`` is not 16 or 32 bytes.
  IndexError: If ``shard`` is not a shard.
)doc")
      .def(
          "check_invariants", [](const Pool& p) { pool_of(p).check_invariants(); },
          "Raises RuntimeError naming what does not hold. For tests.");
}

}  // namespace

void bind_pool(nb::module_& m) {
  nb::class_<PagePoolView> view(m, "PagePoolView", R"doc(
The pool of a `CacheManager`, to look at: only the manager changes it.
)doc");
  bind_questions(view);
  view.def(
          "__eq__",
          [](const PagePoolView& self, nb::handle other) {
            return nb::isinstance<PagePoolView>(other) &&
                   nb::cast<const PagePoolView&>(other).pool == self.pool;
          },
          "other"_a.none(), "Whether it is the same pool.")
      .def("__hash__", [](const PagePoolView& self) {
        return static_cast<Py_hash_t>(reinterpret_cast<std::uintptr_t>(self.pool.get()) >> 4);
      });
  nb::class_<PagePool> pool(m, "PagePool", R"doc(
Who holds which page, which pages are free, and what the cached ones contain.

A page is held by ``ref_count`` requests, or free. A free page keeps its content, and can be found
by it, until it is handed out again: least recently used first. Page 0 is the null page: never
free, never held, never cached. Every call that raises leaves the pool as it was.
)doc");
  bind_questions(pool);
  pool.def(nb::init<PageId>(), "num_pages"_a, R"doc(
Makes pages ``0 .. num_pages - 1``; ``1, 2, 3, ...`` is the first order of allocation.

Raises:
  ValueError: If ``num_pages`` is below 1.
)doc")
      .def(
          "allocate",
          [](PagePool& p, std::int32_t count,
             std::optional<ShardId> shard) -> std::optional<Int32Array> {
            if (count < 0) {
              throw_value_error("PagePool.allocate", "count must be >= 0, got ", count);
            }
            if (shard == kAnyShard) {
              throw_index_error("PagePool.allocate", "shard must be >= 0, got ", *shard);
            }
            if (count > p.num_free_pages(shard.value_or(kAnyShard))) return std::nullopt;
            Int32Array pages({static_cast<std::size_t>(count)});
            if (!p.allocate(pages.values(), shard.value_or(kAnyShard))) return std::nullopt;
            return pages;
          },
          "count"_a, "shard"_a = nb::none(), R"doc(
Takes the ``count`` coldest free pages, each held once; their old content is forgotten. With
``shard``, only its pages count.

Returns:
  int32, shape ``[count]``, or None if fewer pages are free: then nothing is done.

Raises:
  ValueError: If ``count`` is negative.
  IndexError: If ``shard`` is not a shard.

Example:

    >>> pool = PagePool(4)
    >>> pool.allocate(2).tolist(), pool.allocate(2), pool.num_free_pages
    ([1, 2], None, 1)
)doc")
      .def(
          "hold",
          [](PagePool& p, nb::handle pages) {
            p.hold(int32_values(pages, "PagePool.hold", "pages"));
          },
          "pages"_a, R"doc(
Holds each page once more, taking it out of the free pages if it was free.

Args:
  pages: int32, shape ``[n]``, each in ``[1, num_pages)``.

Raises:
  IndexError: If a page is out of range.
)doc")
      .def(
          "free",
          [](PagePool& p, nb::handle pages) {
            p.free(int32_values(pages, "PagePool.free", "pages"));
          },
          "pages"_a, R"doc(
Gives each page back once, in the given order: of those nobody holds any more, the first becomes
the coldest.

Args:
  pages: int32, shape ``[n]``, each in ``[1, num_pages)``.

Raises:
  IndexError: If a page is out of range.
  ValueError: If a page is not held that many times.
)doc")
      .def(
          "cache",
          [](PagePool& p, PageId page, nb::bytes digest, GroupId group) {
            p.cache(page, any_page_hash_of(digest, "PagePool.cache"), group);
          },
          "page"_a, "digest"_a, "group"_a = 0, R"doc(
Makes the content of a held page findable.

Raises:
  IndexError: If ``page`` is out of range.
  ValueError: If nobody holds ``page``, if it is cached already, if ``digest`` is not 16 or 32
    bytes, or if ``group`` is negative.
)doc")
      .def("reset_prefix_cache", &PagePool::reset_prefix_cache,
           "Forgets the content of every page. Returns False and does nothing while one is held.")
      .def("set_num_shards", &PagePool::set_num_shards, "num_shards"_a, R"doc(
Deals the pages out to data-parallel shards. Who holds what, what is cached and the order of eviction
stay.

Raises:
  ValueError: Unless ``num_shards`` is at least 1 and divides ``num_pages``.
)doc");
}

}  // namespace pagedkv
