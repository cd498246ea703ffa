#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "bindings.h"
#include "owning_manager.h"
#include "pagedkv/watch/page_residency.h"

// How long pages keep their content, measured on samples: see docs/metrics.md.
namespace pagedkv {

void bind_residency_calls(nb::module_& m, nb::class_<OwningManager>& manager) {
  nb::class_<Histogram>(m, "Histogram", "How often values fell between bounds. A copy.")
      .def_ro("bounds", &Histogram::bounds, "Rising, inclusive; the last bucket has none.")
      .def_ro("counts", &Histogram::counts, "One a bucket: one more than bounds.")
      .def_ro("sum", &Histogram::sum, "Of all values.")
      .def("__repr__", [](const Histogram& self) {
        return nb::str("Histogram(bounds={}, counts={}, sum={})")
            .format(self.bounds, self.counts, self.sum);
      });
  nb::class_<ResidencyStats>(m, "ResidencyStats", R"doc(
How long pages keep their content and how often it is used, in the unit of ``advance_time``. A copy.
)doc")
      .def_ro("sample_rate", &ResidencyStats::sample_rate, "The share of pages that is watched.")
      .def_ro("lifetime", &ResidencyStats::lifetime,
              "From when a page was handed out to when its content was evicted.")
      .def_ro("idle", &ResidencyStats::idle,
              "From the last use of an evicted page to its eviction.")
      .def_ro("reuse_gap", &ResidencyStats::reuse_gap,
              "From one use of a page to the next; that it was handed out is the first.");
  manager
      .def(
          "start_residency",
          [](OwningManager& self, double sample_rate, const std::vector<std::int64_t>& bounds) {
            self.with_core("CacheManager.start_residency",
                           [&](CacheManager& core) { core.start_residency(sample_rate, bounds); });
          },
          nb::kw_only(), "sample_rate"_a = 0.01, "bounds"_a, R"doc(
Measures from now on, on a sample of the pages that are handed out, how long they keep their content and
how often it is used. The measures are those of vLLM's KV cache residency metrics. Time is what
``advance_time`` was told last. The sample depends on the calls alone, so runs can be repeated.

Args:
  sample_rate: Share of the pages to watch, more than 0 and at most 1.
  bounds: Of the buckets of the histograms: integers in the unit of ``advance_time``, rising, from 0 on.

Raises:
  ValueError: If an argument is out of range, or pages are measured already.
)doc")
      .def_prop_ro(
          "residency",
          [](const OwningManager& m) -> std::optional<ResidencyStats> {
            const PageResidency* residency = m.core().pool().residency();
            return residency == nullptr ? std::nullopt : std::optional(residency->stats());
          },
          "What was measured so far, a copy; None before ``start_residency``.");
}

}  // namespace pagedkv
