#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <system_error>

#include "bindings.h"
#include "owning_manager.h"
#include "pagedkv/trace/op_replay.h"

// Recording of all calls on a manager, and their replay: see docs/op_traces.md.
namespace pagedkv {
namespace {

// Errors of the system are OSError in Python, with the name of the file.
template <typename Work>
auto with_os_errors(const std::string& path, Work work) {
  try {
    return work();
  } catch (const std::system_error& error) {
    errno = error.code().value();
    PyErr_SetFromErrnoWithFilename(PyExc_OSError, path.c_str());
    throw nb::python_error();
  }
}

ReplayReport replay(const std::filesystem::path& path, bool check, PageId max_pages) {
  return with_os_errors(path.string(), [&] {
    const nb::gil_scoped_release release;
    return replay_ops(path.string(), {.check_invariants = check, .max_pages = max_pages});
  });
}

void bind_report(nb::module_& m) {
  nb::class_<ReplayDifference>(m, "ReplayDifference", R"doc(
The first call of a trace that has another answer now.
)doc")
      .def_ro("op", &ReplayDifference::op, "Which call, from 1 on.")
      .def_ro("call", &ReplayDifference::call, "The call and its arguments.")
      .def_ro("recorded", &ReplayDifference::recorded, "The answer in the trace.")
      .def_ro("replayed", &ReplayDifference::replayed,
              "The answer now, or the invariant that does not hold after it.")
      .def("__repr__", [](const ReplayDifference& d) {
        return "op " + std::to_string(d.op) + ", " + d.call + ": recorded " + d.recorded +
               " -- replayed " + d.replayed;
      });
  nb::class_<ReplayReport>(m, "ReplayReport", "What came of `replay_ops`.")
      .def_ro("num_ops", &ReplayReport::num_ops, "Calls whose answers were compared.")
      .def_ro("was_stopped", &ReplayReport::was_stopped,
              "Whether the trace has its end. If not, the process ended while it was recorded.")
      .def_ro("is_cut", &ReplayReport::is_cut,
              "Whether the trace ends in the middle of a record, which was left out.")
      .def_ro("unanswered_call", &ReplayReport::unanswered_call, R"doc(
A last call that the trace has no answer to, or None. It was made.
)doc")
      .def_ro("difference", &ReplayReport::difference,
              "The first call that has another answer now, or None.");
}

}  // namespace

void bind_recording(nb::class_<OwningManager>& manager) {
  manager
      .def(
          "start_recording",
          [](OwningManager& self, const std::filesystem::path& path, bool flush_each_record) {
            with_os_errors(path.string(),
                           [&] { self.start_recording(path.string(), flush_each_record); });
          },
          "path"_a, nb::kw_only(), "flush_each_record"_a = false,
          nb::sig("def start_recording(self, path: str | os.PathLike[str], *, "
                  "flush_each_record: bool = False) -> None"),
          R"doc(
Writes every call that changes the manager, or answers from what it holds, to a file from now on, with
its answer. ``replay_ops`` makes the calls again.

The calls of schedulers' own requests and of whole steps are written as the calls that they are made
of. Calls that are refused before they reach the manager's core leave no trace: they do nothing.

Args:
  path: Begun anew if it is there.
  flush_each_record: Hand each record to the system at once, so that none is lost if the process
    crashes, the call that it crashed in included. Else up to some KiB of the last ones are.

Raises:
  ValueError: Unless the manager is as new: nothing held or cached, and pages in their first order. If
    it is recorded already.
  OSError: If the file cannot be written.
)doc")
      .def(
          "stop_recording",
          [](OwningManager& self) {
            const std::string path = self.recording_path();
            return with_os_errors(path, [&] { return self.stop_recording(); });
          },
          R"doc(
Ends the recording.

Returns:
  The number of calls that were recorded.

Raises:
  ValueError: If the manager is not recorded.
  OSError: If not all could be written.
)doc")
      .def_prop_ro("is_recording", &OwningManager::is_recording,
                   "Whether the calls are written to a file.");
}

void bind_op_traces(nb::module_& m) {
  bind_report(m);
  m.def("replay_ops", &replay, "path"_a, nb::kw_only(), "check"_a = false,
        "max_pages"_a = ReplayOptions().max_pages,
        nb::sig("def replay_ops(path: str | os.PathLike[str], *, check: bool = False, "
                "max_pages: int = 16777216) -> ReplayReport"),
        R"doc(
Makes the calls of a trace again, on a manager like the one that it was recorded from, up to the first
that has another answer.

A trace that ends early, because the process did, is replayed as far as it goes. Goes on without
Python's lock.

Args:
  path: What ``CacheManager.start_recording`` wrote.
  check: Check the invariants of the manager after each call, which takes time in proportion to its
    pages.
  max_pages: Refuse traces of larger pools, which would take 64 bytes a page.

Raises:
  ValueError: If the file is no trace, of another version, or damaged, naming the byte; if its pool is
    too large.
  OSError: If the file cannot be read.

Example:

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "ops.trace")
    >>> spec = FullAttentionSpec(page_size=4, num_kv_heads=1, head_size=64, dtype="bfloat16")
    >>> manager = CacheManager(16, [CacheGroupSpec(spec)], max_model_len=64)
    >>> manager.start_recording(path)
    >>> request = Request("a", range(10))
    >>> manager.match(request), manager.allocate(request, 10)
    (0, True)
    >>> manager.free(request)
    >>> manager.stop_recording()
    3
    >>> report = replay_ops(path, check=True)
    >>> report.num_ops, report.was_stopped, report.difference
    (3, True, None)
)doc");
}

}  // namespace pagedkv
