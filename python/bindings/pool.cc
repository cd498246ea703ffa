#include <nanobind/stl/optional.h>

#include <cstring>
#include <optional>

#include "arrays.h"
#include "bindings.h"
#include "digests.h"
#include "pagedkv/error.h"
#include "pagedkv/pool/page_pool.h"

namespace pagedkv {

void bind_pool(nb::module_& m) {
  nb::class_<PagePool>(m, "PagePool", R"doc(
Who holds which page, which pages are free, and what the cached ones contain.

A page is held by ``ref_count`` requests, or free. A free page keeps its content, and can be found
by it, until it is handed out again: least recently used first. Page 0 is the null page: never
free, never held, never cached. Every call that raises leaves the pool as it was.
)doc")
      .def(nb::init<PageId>(), "num_pages"_a, R"doc(
Makes pages ``0 .. num_pages - 1``; ``1, 2, 3, ...`` is the first order of allocation.

Raises:
  ValueError: If ``num_pages`` is below 1.
)doc")
      .def_prop_ro("num_pages", &PagePool::num_pages, "All pages, the null page among them.")
      .def_prop_ro("num_free_pages", &PagePool::num_free_pages)
      .def_prop_ro("num_cached_pages", &PagePool::num_cached_pages,
                   "Pages whose content can be found, held or free, duplicates included.")
      .def_prop_ro("num_cached_keys", &PagePool::num_cached_keys,
                   "Distinct (digest, group) keys among the cached pages.")
      .def_prop_ro("num_evictions", &PagePool::num_evictions,
                   "Times a page lost its content because it was handed out again.")
      .def("ref_count", &PagePool::ref_count, "page"_a, R"doc(
How many requests hold ``page``.

Raises:
  IndexError: If ``page`` is not in ``[0, num_pages)``.
)doc")
      .def("is_cached", &PagePool::is_cached, "page"_a, R"doc(
Whether the content of ``page`` can be found.

Raises:
  IndexError: If ``page`` is not in ``[0, num_pages)``.
)doc")
      .def(
          "allocate",
          [](PagePool& pool, std::int32_t count) -> std::optional<Int32Array> {
            if (count < 0)
              throw_value_error("PagePool.allocate", "count must be >= 0, got ", count);
            if (count > pool.num_free_pages()) return std::nullopt;
            Int32Array pages = new_int32_array({static_cast<std::size_t>(count)});
            if (!pool.allocate(span_of(pages))) return std::nullopt;
            return pages;
          },
          "count"_a, R"doc(
Takes the ``count`` coldest free pages, each held once; their old content is forgotten.

Returns:
  int32, shape ``[count]``, or None if fewer pages are free: then nothing is done.

Raises:
  ValueError: If ``count`` is negative.

Example:

    >>> pool = PagePool(4)
    >>> pool.allocate(2).tolist(), pool.allocate(2), pool.num_free_pages
    ([1, 2], None, 1)
)doc")
      .def(
          "hold",
          [](PagePool& pool, nb::handle pages) {
            pool.hold(int32_values(pages, "PagePool.hold", "pages"));
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
          [](PagePool& pool, nb::handle pages) {
            pool.free(int32_values(pages, "PagePool.free", "pages"));
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
          "find",
          [](const PagePool& pool, nb::bytes digest, GroupId group) -> std::optional<PageId> {
            const PageId page = pool.find(any_page_hash_of(digest, "PagePool.find"), group);
            return page == kNoPage ? std::nullopt : std::optional(page);
          },
          "digest"_a, "group"_a = 0, R"doc(
The oldest page whose content has this digest in ``group``, or None.

Raises:
  ValueError: If ``digest`` is not 16 or 32 bytes.
)doc")
      .def(
          "cache",
          [](PagePool& pool, PageId page, nb::bytes digest, GroupId group) {
            pool.cache(page, any_page_hash_of(digest, "PagePool.cache"), group);
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
      .def("check_invariants", &PagePool::check_invariants,
           "Raises RuntimeError naming what does not hold. For tests.");
}

}  // namespace pagedkv
