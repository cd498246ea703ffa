#include "cache_pages.h"

#include <nanobind/stl/string.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "arrays.h"
#include "pagedkv/error.h"

namespace pagedkv {
namespace {

int traverse_pages(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  return nb::inst_ready(self) ? nb::inst_ptr<CachePages>(self)->traverse(visit, arg) : 0;
}

int clear_pages(PyObject* self) {
  if (nb::inst_ready(self)) nb::inst_ptr<CachePages>(self)->clear();
  return 0;
}

PyType_Slot kPagesSlots[] = {
    {Py_tp_traverse, reinterpret_cast<void*>(traverse_pages)},
    {Py_tp_clear, reinterpret_cast<void*>(clear_pages)},
    {0, nullptr},
};

nb::list list_of(std::span<const PageId> ids) {
  nb::list out;
  for (const PageId id : ids) out.append(nb::int_(id));
  return out;
}

// A tuple of what `make(i)` gives: `nb::tuple(list)` would copy.
template <typename Make>
nb::tuple make_tuple_of(std::size_t size, Make make) {
  nb::object out = nb::steal(PyTuple_New(static_cast<Py_ssize_t>(size)));
  if (!out.is_valid()) nb::raise_python_error();
  for (std::size_t i = 0; i < size; ++i) {
    if (PyTuple_SetItem(out.ptr(), static_cast<Py_ssize_t>(i), make(i).release().ptr()) != 0) {
      nb::raise_python_error();
    }
  }
  return nb::borrow<nb::tuple>(out);
}

CachePages sum(CachePages& left, CachePages& right) {
  const std::size_t num_groups = std::min(left.num_groups(), right.num_groups());
  if (left.pool().pool != right.pool().pool || !left.is_made_of_ids()) {
    nb::list groups;
    for (std::size_t group = 0; group < num_groups; ++group) {
      groups.append(left.pages()[group] + right.pages()[group]);
    }
    return CachePages(nb::tuple(groups));
  }
  std::vector<PageId> joined;
  return {left.pool(), static_cast<GroupId>(num_groups), [&](GroupId group) {
            joined.clear();
            for (const CachePages* part : {&left, &right}) {
              const auto ids = part->ids(static_cast<std::size_t>(group));
              joined.insert(joined.end(), ids.begin(), ids.end());
            }
            return std::span<const PageId>(joined);
          }};
}

}  // namespace

bool CachePages::is_empty() const {
  if (is_made_of_ids()) return ids_.empty();
  return std::ranges::all_of(pages_, [](nb::handle group) { return nb::len(group) == 0; });
}

nb::tuple CachePages::page_ids() const {
  return make_tuple_of(num_groups(), [this](std::size_t group) {
    if (is_made_of_ids()) return list_of(ids(group));
    nb::list page_ids;
    for (nb::handle page : nb::object(pages_[group])) page_ids.append(page.attr("page_id"));
    return page_ids;
  });
}

GroupPages CachePages::rows(const char* operation) const {
  GroupPages rows;
  if (is_made_of_ids()) {
    for (std::size_t group = 0; group < ends_.size(); ++group) {
      rows.emplace_back(ids(group).begin(), ids(group).end());
    }
  } else {
    for (nb::handle group : page_ids()) {
      rows.push_back(int32_values(group, operation, "page ids"));
    }
  }
  return rows;
}

std::string CachePages::repr() const {
  return nb::repr(is_made_of_ids() ? page_ids() : pages_).c_str();
}

nb::tuple CachePages::pages() {
  if (!pages_.is_valid()) {
    pages_ =
        nb::tuple(nb::module_::import_("pagedkv.pages").attr("pooled_pages")(pool_, page_ids()));
  }
  return pages_;
}

void bind_cache_pages(nb::module_& m) {
  nb::class_<CachePages>(m, "CachePages", nb::type_slots(kPagesSlots), R"doc(
Pages of one request, a list a group, as the calls of `CacheManager` that schedulers make hand them
around.

Only ids are kept; an object a page is made when ``pages`` is read.
)doc")
      .def(nb::init<nb::tuple>(), "pages"_a,
           nb::sig("def __init__(self, pages: tuple[list[typing.Any], ...]) -> None"),
           "Wraps a tuple of lists of pages, one a group.")
      .def_prop_ro("pages", &CachePages::pages,
                   nb::sig("def pages(self) -> tuple[list[typing.Any], ...]"),
                   "The pages: a tuple of lists of `CachePage`, one a group.")
      .def("get_page_ids", &CachePages::page_ids,
           nb::sig("def get_page_ids(self) -> tuple[list[int], ...]"), R"doc(
The ids of the pages: a fresh tuple of lists of int, one a group. 0, the null page, where a group
needs none.
)doc")
      .def(
          "get_unhashed_page_ids",
          [](CachePages& self) {
            if (self.num_groups() != 1) {
              throw_value_error("CachePages.get_unhashed_page_ids",
                                "only for one group of layers, these are pages of ",
                                self.num_groups());
            }
            nb::list ids;
            for (nb::handle page : nb::list(self.pages()[0])) {
              if (page.attr("page_hash").is_none()) ids.append(page.attr("page_id"));
            }
            return ids;
          },
          nb::sig("def get_unhashed_page_ids(self) -> list[int]"), R"doc(
The ids of the pages that have no hash: they cannot be found yet.

Raises:
  ValueError: If there is more than one group.
)doc")
      .def(
          "new_empty",
          [](const CachePages& self) {
            nb::list groups;
            for (std::size_t i = 0; i < self.num_groups(); ++i) groups.append(nb::list());
            return CachePages(nb::tuple(groups));
          },
          "Empty lists, as many as there are here.")
      .def("__add__", &sum, "other"_a, "The pages of both, group by group.")
      .def(
          "__eq__",
          [](CachePages& self, nb::handle other) {
            if (!nb::isinstance<CachePages>(other)) return false;
            auto& right = nb::cast<CachePages&>(other);
            if (self.pool().pool != right.pool().pool || !self.is_made_of_ids()) {
              return self.pages().equal(right.pages());
            }
            return self.rows("CachePages") == right.rows("CachePages");
          },
          "other"_a.none(), "Whether the pages are the same.")
      .def("__repr__", [](const CachePages& self) { return "CachePages(" + self.repr() + ")"; });
}

}  // namespace pagedkv
