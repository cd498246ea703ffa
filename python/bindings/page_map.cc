#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "arrays.h"
#include "bindings.h"
#include "owning_manager.h"

// Who has which page, as arrays; and a picture of it, which is drawn in Python.
namespace pagedkv {
void bind_page_map(nb::module_& m, nb::class_<OwningManager>& manager) {
  nb::class_<PageMap>(m, "PageMap", R"doc(
Who has which page of a `CacheManager`. A copy: it does not change.

Arrays are fresh ones each time they are asked for.
)doc")
      .def_prop_ro(
          "ref_counts", [](const PageMap& map) { return copy_of(map.ref_counts); },
          "int32, shape ``[num_pages]``: requests and pins that hold each page.")
      .def_prop_ro(
          "num_pins", [](const PageMap& map) { return copy_of(map.num_pins); },
          "int32, shape ``[num_pages]``: pins among these.")
      .def_prop_ro(
          "is_cached", [](const PageMap& map) { return copy_of(map.is_cached); },
          "int32, shape ``[num_pages]``: 1 if the content of the page can be found, else 0.")
      .def_prop_ro(
          "groups", [](const PageMap& map) { return copy_of(map.groups); },
          "int32, shape ``[num_pages]``: the group of the page's content, or of the requests that "
          "hold it; -1 of others.")
      .def_prop_ro(
          "request_ids", [](const PageMap& map) { return map.request_ids; },
          "Requests that hold pages, a fresh list.")
      .def_prop_ro(
          "held_starts", [](const PageMap& map) { return copy_of(map.held_starts); },
          "int64, shape ``[requests + 1]``: request ``i`` holds ``held_pages[held_starts[i] : "
          "held_starts[i + 1]]``.")
      .def_prop_ro(
          "held_pages", [](const PageMap& map) { return copy_of(map.held_pages); },
          "int32, shape ``[sum]``: pages of each request, one group after the other, without null "
          "pages.");
  manager
      .def(
          "page_map", [](const OwningManager& self) { return self.core().page_map(); }, R"doc(
Who has which page now. O(pages).

Example:

    >>> spec = FullAttentionSpec(page_size=4, num_kv_heads=1, head_size=64, dtype="bfloat16")
    >>> manager = CacheManager(6, [CacheGroupSpec(spec)], max_model_len=64)
    >>> manager.allocate(Request("a", range(10)), 10)
    True
    >>> manager.page_map().ref_counts.tolist()
    [0, 1, 1, 1, 0, 0]
)doc")
      .def(
          "inspect",
          [](nb::handle self) {
            return nb::module_::import_("pagedkv.inspection").attr("PoolPicture").attr("of")(self);
          },
          nb::sig("def inspect(self) -> pagedkv.inspection.PoolPicture"), R"doc(
A picture of the pool: pages by state, a map of all pages, and who shares what with whom.

It shows itself as text when it is printed, in colours where rich prints it, and as SVG in a
notebook. A copy: it does not change. O(pages).
)doc");
}

}  // namespace pagedkv
