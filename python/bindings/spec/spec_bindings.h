#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "pagedkv/error.h"
#include "pagedkv/spec/cache_group_spec.h"

// What the bindings of all specs share. One file a spec, one `bind_x_spec` a file.
namespace pagedkv {

namespace nb = nanobind;
using namespace nb::literals;

/// A dtype by name, or anything `numpy.dtype` understands: NumPy, ml_dtypes and JAX dtypes.
DType to_dtype(const nb::object& dtype);

/// The integer `value` holds. Throws TypeError for other types (bool too), ValueError for one that
/// is not int32 (int64): "[spec] name must be an int, got …".
std::int32_t to_int32(nb::handle value, std::string_view spec, const char* name);
std::int64_t to_int64(nb::handle value, std::string_view spec, const char* name);

/// The same, and nothing for None.
std::optional<std::int32_t> to_optional_int32(nb::handle value, std::string_view spec,
                                              const char* name);
std::optional<std::int64_t> to_optional_int64(nb::handle value, std::string_view spec,
                                              const char* name);

/// The arguments that all attention specs take, unconverted.
struct AttentionArguments {
  nb::object page_size;
  nb::object num_kv_heads;
  nb::object head_size;
  nb::object dtype;
  nb::object use_mla;
  nb::object head_size_v;
  nb::object page_size_padded;
};
AttentionLayout to_layout(std::string_view spec, const AttentionArguments& arguments);

/// The arguments that give `layout`, by name; those that are at their default are left out.
nb::dict arguments_of(const AttentionLayout& layout);

/// One limit of `max_memory_usage_bytes`, by its name.
std::int64_t to_limit(nb::handle value, const char* name);

/// "Name(key=value, …)".
std::string call_text(std::string_view name, const nb::dict& arguments);

/// `(partial(type, **arguments), ())`: what pickle and copy build the value from again.
nb::tuple reduce(nb::handle type, const nb::dict& arguments);

/// A hash of the arguments, which are equal for equal values.
nb::object hash_of(std::string_view name, const nb::dict& arguments);

/// Equality, hash, repr, pickle and copy of a value that its constructor's `arguments` describe.
template <typename Value, typename... Extra>
void bind_value(nb::class_<Value, Extra...>& type, const char* name,
                nb::dict (*arguments)(const Value&)) {
  type.def(
          "__eq__",
          [](nb::handle self, nb::handle other) {
            return self.type().is(other.type()) &&
                   nb::cast<const Value&>(self) == nb::cast<const Value&>(other);
          },
          nb::arg().none(), nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def(
          "__hash__",
          [name, arguments](const Value& self) { return hash_of(name, arguments(self)); },
          nb::sig("def __hash__(self) -> int"))
      .def("__repr__",
           [name, arguments](const Value& self) { return call_text(name, arguments(self)); });
  type.def(
      "__reduce__",
      [arguments](nb::handle self) {
        return reduce(self.type(), arguments(nb::cast<const Value&>(self)));
      },
      nb::sig("def __reduce__(self) -> tuple[object, ...]"));
}

/// `bind_value`, `merge` and `copy_with_new_page_size` of a spec.
template <typename Spec, typename Base>
void bind_spec_value(nb::class_<Spec, Base>& type, nb::dict (*arguments)(const Spec&)) {
  bind_value(type, Spec::kName.data(), arguments);
  type.def_static(
      "merge",
      [](const std::vector<AnyCacheSpec>& specs) {
        std::vector<Spec> same_type;
        for (const AnyCacheSpec& spec : specs) {
          if (!std::holds_alternative<Spec>(spec)) {
            throw_value_error(Spec::kName, "merge takes specs of this type, got a ", name_of(spec));
          }
          same_type.push_back(std::get<Spec>(spec));
        }
        return Spec::merge(same_type);
      },
      "specs"_a, R"doc(
The spec of a group whose layers have ``specs``: those that ask the same of a page table.

Raises:
  ValueError: If ``specs`` is empty, or two differ in type, ``type_id``, page size or page bytes.
)doc");
  type.def(
      "copy_with_new_page_size",
      [](const Spec& self, std::int32_t page_size) {
        return self.copy_with_new_page_size(page_size);
      },
      "page_size"_a, R"doc(
The same with ``page_size`` tokens a page; ``page_size_padded`` grows in proportion to the data.

Raises:
  ValueError: If ``page_size`` is below 1, or the padding would be no whole number of bytes.
)doc");
}

// One function per file, called in this order by spec.cc.
void bind_base_specs(nb::module_& m);
void bind_full_attention_spec(nb::module_& m);
void bind_sliding_window_spec(nb::module_& m);
void bind_chunked_local_attention_spec(nb::module_& m);
void bind_cross_attention_spec(nb::module_& m);
void bind_mamba_spec(nb::module_& m);
void bind_cache_groups(nb::module_& m);

}  // namespace pagedkv
