#include <nanobind/stl/optional.h>

#include <cstdint>
#include <optional>
#include <span>

#include "arrays.h"
#include "owning_manager.h"
#include "pagedkv/batch/batch_tables.h"
#include "pagedkv/error.h"
#include "step_arrays.h"

// What the jitted step takes of the requests with handles: fresh arrays each time.
namespace pagedkv {
namespace {

std::span<const Request* const> read_only(std::span<Request* const> requests) {
  return {const_cast<const Request* const*>(requests.data()), requests.size()};
}

Int32Array step_tokens(OwningManager& manager, const HandleArray& handles, nb::handle num_tokens) {
  constexpr auto kOperation = "CacheManager.next_tokens";
  const Int32Input counts(num_tokens, kOperation, "num_tokens");
  return manager.with_handles(kOperation, [&](CacheManager&, RequestHandles& known) {
    const auto requests = read_only(known.resolve(values_of(handles), kOperation));
    const std::int32_t size = num_next_tokens(requests, counts);
    Int32Array tokens({static_cast<std::size_t>(size)});
    fill_next_tokens(requests, counts, tokens.values());
    return tokens;
  });
}

Int32Array step_slots(OwningManager& manager, const HandleArray& handles, nb::handle num_tokens,
                      GroupId group) {
  constexpr auto kOperation = "CacheManager.slot_mapping";
  const Int32Input counts(num_tokens, kOperation, "num_tokens");
  return manager.with_handles(kOperation, [&](CacheManager& core, RequestHandles& known) {
    const auto requests = read_only(known.resolve(values_of(handles), kOperation));
    const std::int32_t size = num_slots(core, requests, counts);
    Int32Array slots({static_cast<std::size_t>(size)});
    fill_slot_mapping(core, requests, counts, group, slots.values());
    return slots;
  });
}

Int32Array step_table(OwningManager& manager, const HandleArray& handles,
                      std::optional<std::int32_t> width, GroupId group) {
  constexpr auto kOperation = "CacheManager.page_table";
  if (width && *width < 0) throw_value_error(kOperation, "width must be >= 0, got ", *width);
  return manager.with_handles(kOperation, [&](CacheManager& core, RequestHandles& known) {
    const auto requests = read_only(known.resolve(values_of(handles), kOperation));
    const std::int32_t columns = width ? *width : max_num_pages(core, requests, group);
    Int32Array table({requests.size(), static_cast<std::size_t>(columns)});
    fill_page_table(core, requests, group, columns, table.values());
    return table;
  });
}

}  // namespace

void bind_step_tables(nb::class_<OwningManager>& manager) {
  manager
      .def("next_tokens", &step_tokens, "handles"_a.noconvert(), "num_tokens"_a, R"doc(
The next ``num_tokens[i]`` tokens of each request after its computed ones, back to back.

Args:
  handles: int64 ``[n]``, or a list, from ``add_requests``.
  num_tokens: int32 ``[n]``, each >= 0.

Returns:
  A fresh int32 array, shape ``[sum(num_tokens)]``: a token for each slot of ``slot_mapping``.

Raises:
  ValueError: If a request has fewer tokens; if there is not one count a request; if a handle is of no
    request, or there twice.
)doc")
      .def("slot_mapping", &step_slots, "handles"_a.noconvert(), "num_tokens"_a, "group"_a = 0,
           R"doc(
As with a list of requests, of requests with handles: int64 ``[n]``.
)doc")
      .def("page_table", &step_table, "handles"_a.noconvert(), "width"_a = nb::none(),
           "group"_a = 0, R"doc(
As with a list of requests, of requests with handles: int64 ``[n]``.
)doc");
}

}  // namespace pagedkv
