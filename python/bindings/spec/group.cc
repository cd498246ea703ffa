#include "spec_bindings.h"

namespace pagedkv {
namespace {

nb::dict group_arguments(const CacheGroupSpec& group) {
  nb::dict arguments;
  arguments["kv_cache_spec"] = group.kv_cache_spec;
  if (group.layer_names) arguments["layer_names"] = *group.layer_names;
  return arguments;
}

nb::dict config_arguments(const CacheGroupsConfig& config) {
  nb::dict arguments;
  arguments["num_pages"] = config.num_pages();
  arguments["kv_cache_groups"] = config.kv_cache_groups();
  return arguments;
}

AnyCacheSpec to_spec(nb::handle spec) {
  if (!nb::isinstance<CacheSpec>(spec)) {
    throw nb::type_error(error_message("CacheGroupSpec", "kv_cache_spec must be a CacheSpec, got ",
                                       nb::repr(spec).c_str())
                             .c_str());
  }
  return nb::cast<AnyCacheSpec>(spec);
}

}  // namespace

void bind_cache_groups(nb::module_& m) {
  nb::class_<CacheGroupSpec> group(m, "CacheGroupSpec",
                                   "Layers that share one page table: own tensors, same page ids.");
  group
      .def(
          "__init__",
          [](CacheGroupSpec* self, const nb::object& kv_cache_spec,
             std::optional<std::vector<std::string>> layer_names) {
            new (self) CacheGroupSpec{to_spec(kv_cache_spec), std::move(layer_names)};
          },
          "kv_cache_spec"_a.none(), "layer_names"_a = nb::none(),
          nb::sig("def __init__(self, kv_cache_spec: CacheSpec, "
                  "layer_names: collections.abc.Sequence[str] | None = None) -> None"),
          R"doc(
Groups layers that all have one spec.

Args:
  kv_cache_spec: What each of the layers keeps.
  layer_names: Names of the layers, for the reader.

Raises:
  TypeError: If an argument is of another type.
)doc")
      .def_ro("kv_cache_spec", &CacheGroupSpec::kv_cache_spec, "What each of the layers keeps.")
      .def_prop_ro(
          "layer_names", [](const CacheGroupSpec& self) { return self.layer_names; },
          "Names of the layers, a fresh list, or None if nobody said.");
  bind_value(group, "CacheGroupSpec", group_arguments);

  nb::class_<CacheGroupsConfig> config(m, "CacheGroupsConfig", R"doc(
All that a manager needs to know of a model: its groups, and the pages they share.
)doc");
  config
      .def(
          "__init__",
          [](CacheGroupsConfig* self, const nb::object& num_pages,
             std::vector<CacheGroupSpec> kv_cache_groups) {
            new (self) CacheGroupsConfig(to_int32(num_pages, "CacheGroupsConfig", "num_pages"),
                                         std::move(kv_cache_groups));
          },
          "num_pages"_a.none(), "kv_cache_groups"_a,
          nb::sig("def __init__(self, num_pages: int, "
                  "kv_cache_groups: collections.abc.Sequence[CacheGroupSpec]) -> None"),
          R"doc(
Args:
  num_pages: Pages of the pool, the null page included; at least 1.
  kv_cache_groups: At least one group.

Raises:
  TypeError: If an argument is of another type.
  ValueError: If ``num_pages`` is below 1, or there is no group.
)doc")
      .def_prop_ro("num_pages", &CacheGroupsConfig::num_pages,
                   "Pages of the pool, the null page included.")
      .def_prop_ro(
          "kv_cache_groups", [](const CacheGroupsConfig& self) { return self.kv_cache_groups(); },
          "The groups, in a fresh list.");
  bind_value(config, "CacheGroupsConfig", config_arguments);
}

}  // namespace pagedkv
