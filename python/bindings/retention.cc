#include "pagedkv/manager/retention.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.h"
#include "owning_manager.h"
#include "pagedkv/error.h"

namespace pagedkv {
namespace {

constexpr std::int64_t kForever = RetentionTerm::kForever;

// Python has None for "always" and for "nobody", and no numbers.
std::optional<std::int64_t> optional_ttl(std::int64_t ttl) {
  return ttl == kForever ? std::nullopt : std::optional(ttl);
}

TenantId checked_tenant(const char* operation, std::optional<TenantId> tenant) {
  if (tenant && *tenant < 0) throw_value_error(operation, "tenant must be >= 0, got ", *tenant);
  return tenant.value_or(kNoTenant);
}

void init_range(RetentionRange* self, std::int32_t start, std::optional<std::int32_t> end,
                std::int32_t priority, std::optional<std::int64_t> ttl) {
  const RetentionRange range{start, end.value_or(RetentionRange::kToTheEnd), priority,
                             ttl.value_or(kForever)};
  const Retention checked({}, {range});
  new (self) RetentionRange(range);
}

void init_retention(Retention* self, std::int32_t priority, std::optional<std::int64_t> ttl,
                    std::optional<TenantId> tenant, std::vector<RetentionRange> ranges,
                    std::optional<std::int32_t> decode_priority,
                    std::optional<std::int64_t> decode_ttl) {
  std::optional<RetentionTerm> decoded;
  if (decode_priority || decode_ttl) {
    decoded = RetentionTerm{decode_priority.value_or(priority), decode_ttl.value_or(kForever)};
  }
  new (self) Retention({priority, ttl.value_or(kForever), checked_tenant("Retention", tenant)},
                       std::move(ranges), decoded);
}

nb::str repr_of(const RetentionRange& range) {
  return nb::str("RetentionRange({}, {}, priority={}, ttl={})")
      .format(range.begin,
              range.end == RetentionRange::kToTheEnd ? nb::none() : nb::object(nb::int_(range.end)),
              range.priority, optional_ttl(range.ttl));
}

void bind_ranges(nb::module_& m) {
  nb::class_<RetentionRange>(m, "RetentionRange",
                             "Tokens of a prompt, and how long their pages are kept.")
      .def("__init__", &init_range, "start"_a, "end"_a = nb::none(), nb::kw_only(),
           "priority"_a = RetentionTerm::kDefaultPriority, "ttl"_a = nb::none(), R"doc(
Tokens from ``start`` on to before ``end``; to the prompt's end if that is None.

Args:
  start: At least 0.
  end: More than ``start``.
  priority: 0 to 100.
  ttl: At least 1; None for no limit.

Raises:
  ValueError: If one is out of range.
)doc")
      .def_ro("start", &RetentionRange::begin)
      .def_prop_ro("end",
                   [](const RetentionRange& range) {
                     return range.end == RetentionRange::kToTheEnd ? std::nullopt
                                                                   : std::optional(range.end);
                   })
      .def_ro("priority", &RetentionRange::priority)
      .def_prop_ro("ttl", [](const RetentionRange& range) { return optional_ttl(range.ttl); })
      .def("__repr__", &repr_of);
}

}  // namespace

void bind_retention(nb::module_& m) {
  bind_ranges(m);
  nb::class_<Retention>(m, "Retention", R"doc(
How a request wants its pages to be kept once nobody holds them.

The idea and its parts are those of TensorRT-LLM's ``KvCacheRetentionConfig``; tenants are ours. See
``docs/retention.md`` for the order of eviction.
)doc")
      .def("__init__", &init_retention, "priority"_a = RetentionTerm::kDefaultPriority,
           nb::kw_only(), "ttl"_a = nb::none(), "tenant"_a = nb::none(),
           "ranges"_a = std::vector<RetentionRange>(), "decode_priority"_a = nb::none(),
           "decode_ttl"_a = nb::none(), R"doc(
A page has the strongest of all that its tokens have: the highest priority, then the longest time.

Args:
  priority: 0 (evicted first) to 100 (last), of tokens that nothing below is about.
  ttl: After so long without use the priority is 50 again, in the unit of
    ``CacheManager.advance_time``. None for no limit.
  tenant: A number >= 0 for whom the pages are counted: see ``CacheManager.set_tenant_quota``.
  ranges: `RetentionRange`s of the prompt: of the tokens that the request is made with. They may
    overlap.
  decode_priority: Of tokens that are appended later. As ``priority`` if both are None.
  decode_ttl: Of those tokens.

Raises:
  ValueError: If one is out of range.

Example:

    >>> system_prompt = RetentionRange(0, 512, priority=90, ttl=3600)
    >>> retention = Retention(ranges=[system_prompt], decode_priority=10)
    >>> request = Request("a", range(1000), retention=retention)
    >>> request.retention.ranges
    [RetentionRange(0, 512, priority=90, ttl=3600)]
)doc")
      .def_prop_ro("priority", [](const Retention& self) { return self.term().priority; })
      .def_prop_ro("ttl", [](const Retention& self) { return optional_ttl(self.term().ttl); })
      .def_prop_ro("tenant",
                   [](const Retention& self) {
                     const TenantId tenant = self.term().tenant;
                     return tenant == kNoTenant ? std::nullopt : std::optional(tenant);
                   })
      .def_prop_ro(
          "ranges",
          [](const Retention& self) {
            return std::vector<RetentionRange>(self.ranges().begin(), self.ranges().end());
          },
          "The ranges, by rising start.")
      .def_prop_ro("decode_priority", [](const Retention& self) { return self.decoded().priority; })
      .def_prop_ro("decode_ttl",
                   [](const Retention& self) { return optional_ttl(self.decoded().ttl); });
}

void bind_retention_calls(nb::class_<OwningManager>& manager) {
  manager
      .def(
          "pin",
          [](OwningManager& self, Request& request) {
            return self.with_core("CacheManager.pin",
                                  [&](CacheManager& core) { return core.pin(request); });
          },
          "request"_a, R"doc(
Keeps the pages of ``request`` that others can find, its committed full pages, from being evicted.

They stay when the request has gone, until ``unpin``. Pinned pages are not free: fewer are left to
allocate from. ``reset_prefix_cache`` refuses while there are pins.

Returns:
  A number for ``unpin``. A request may be pinned more than once.

Raises:
  ValueError: If the request holds no pages of this manager, or none that can be found.
)doc")
      .def(
          "unpin",
          [](OwningManager& self, PinId pin) {
            self.with_core("CacheManager.unpin", [&](CacheManager& core) { core.unpin(pin); });
          },
          "pin"_a, R"doc(
Lets the pages of a pin go: they are the warmest then, the last of them evicted first.

Raises:
  ValueError: If there is no such pin (any more).
)doc")
      .def_prop_ro(
          "num_pinned_pages", [](const OwningManager& m) { return m.core().pins().num_pages(); },
          "Distinct pages that pins hold.")
      .def(
          "advance_time",
          [](OwningManager& self, std::int64_t now) {
            self.with_core("CacheManager.advance_time",
                           [&](CacheManager& core) { core.advance_time(now); });
          },
          "now"_a, R"doc(
Tells the time, in any unit, for the ``ttl`` of retentions. It starts at 0.

A time limit counts from when a page was given back by the last that held it. Pages whose time has
run out are from now on as if they had been given back on the default priority. The manager reads no
clock: a coarse unit costs less, since pages given back at one time run out together.

Raises:
  ValueError: If ``now`` is less than before.
)doc")
      .def_prop_ro(
          "now", [](const OwningManager& m) { return m.core().pool().now(); },
          "The latest time given to ``advance_time``.")
      .def(
          "set_tenant_quota",
          [](OwningManager& self, TenantId tenant, std::optional<PageId> max_pages) {
            self.with_core("CacheManager.set_tenant_quota",
                           [&](CacheManager& core) { core.set_tenant_quota(tenant, max_pages); });
          },
          "tenant"_a, "max_pages"_a.none(), R"doc(
How many pages a tenant may have before it is evicted from first. It never makes a call fail.

Counted are pages that its requests were given, until they lose their content, and not those that
they found in the cache. While a tenant has more, its free pages go before all others; one that has
as many gives up its own free pages for new ones.

Args:
  tenant: As in `Retention`.
  max_pages: At least 0; None for no quota.

Raises:
  ValueError: If one is out of range.
)doc")
      .def(
          "num_tenant_pages",
          [](const OwningManager& m, TenantId tenant) {
            return m.core().pool().num_tenant_pages(tenant);
          },
          "tenant"_a, R"doc(
Pages held for a tenant, and free ones with content that it brought in.

Raises:
  ValueError: If ``tenant`` is negative.
)doc");
}

}  // namespace pagedkv
