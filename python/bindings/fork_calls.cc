#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <vector>

#include "arrays.h"
#include "owning_manager.h"
#include "pagedkv/batch/step.h"
#include "step_arrays.h"

// Requests that go on from where others are, and the pages to copy for them.
namespace pagedkv {
namespace {

Int32Array array_of(const PageCopies& copies) {
  Int32Array array({copies.size(), 2});
  auto next = array.values().begin();
  for (const auto& [source, target] : copies) {
    *next++ = source;
    *next++ = target;
  }
  return array;
}

std::optional<std::vector<Int32Array>> fork(OwningManager& manager, Request& parent,
                                            Request& child) {
  std::vector<PageCopies> copies;
  if (!manager.fork(parent, child, copies)) return std::nullopt;
  std::vector<Int32Array> arrays;
  for (const PageCopies& group : copies) arrays.push_back(array_of(group));
  return arrays;
}

StepFork fork_requests(OwningManager& manager, const HandleArray& parents,
                       const HandleArray& children) {
  constexpr auto kOperation = "CacheManager.fork_requests";
  return manager.with_handles(kOperation, [&](CacheManager& core, RequestHandles& known) {
    const auto from = known.resolve_repeated(values_of(parents), kOperation);
    return fork_step(core, from, known.resolve(values_of(children), kOperation));
  });
}

}  // namespace

void bind_fork_calls(nb::module_& m, nb::class_<OwningManager>& manager) {
  nb::class_<StepFork>(m, "StepFork", "What the children of a step's forks were given.")
      .def_ro("num_requests", &StepFork::num_requests,
              "The first so many children were forked; nothing was done for the others.")
      .def(
          "page_copies",
          [](const StepFork& forked, GroupId group) {
            return array_of(of_group(forked.copies, group, "StepFork"));
          },
          "group"_a = 0, R"doc(
Pages to copy before the next step of parents or children: int32 ``[n, 2]``, source and target.
)doc");
  manager
      .def("fork", &fork, "parent"_a, "child"_a, R"doc(
Lets ``child`` go on from the computed tokens of ``parent``: for beam search, and for several answers
to one prompt.

Both hold the pages that are final. Of a page that is written to again (one that is not full, or the
state of a state-space layer) the child gets one of its own, and the content is to be copied. Nothing
is computed or hashed again, and caching need not be on.

Args:
  parent: Holds pages, and has computed tokens. Tokens computed now cannot be truncated any more.
  child: Holds no pages. Begins with the computed tokens of ``parent``, and has its extra keys:
    ``parent.copy(request_id)``, for example.

Returns:
  For each group the pages to copy before the next step of either request: int32 ``[n, 2]``, source
  and target. None if too few pages are free: then nothing is done.

Raises:
  ValueError: If ``parent`` holds no pages or has no computed tokens; if ``child`` holds pages, begins
    with other tokens, or has other extra keys or another number of encoder tokens.

Example:

    >>> spec = FullAttentionSpec(page_size=4, num_kv_heads=1, head_size=64, dtype="bfloat16")
    >>> manager = CacheManager(16, [CacheGroupSpec(spec)], max_model_len=64)
    >>> parent = Request("parent", range(10))
    >>> manager.allocate(parent, 10), manager.commit(parent, 10)
    (True, False)
    >>> child = parent.copy("child")
    >>> [pairs.tolist() for pairs in manager.fork(parent, child)]
    [[[3, 4]]]
    >>> manager.page_table([parent, child]).tolist()
    [[1, 2, 3], [1, 2, 4]]
)doc")
      .def("fork_requests", &fork_requests, "parents"_a.noconvert(), "children"_a.noconvert(),
           R"doc(
As ``fork`` of ``children[i]`` from ``parents[i]``, in turn, up to the first that does not fit.

Args:
  parents: int64 ``[n]``, from ``add_requests``. One may be there more than once.
  children: int64 ``[n]``, from ``add_requests``.

Raises:
  ValueError: As ``fork``; if there is not one parent a child; if a handle is of no request, or a
    child there twice. Then nothing is done.
)doc");
}

}  // namespace pagedkv
