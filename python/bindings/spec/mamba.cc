#include "spec_bindings.h"

namespace pagedkv {
namespace {

constexpr auto kName = MambaSpec::kName;

bool is_list_or_tuple(nb::handle value) {
  return nb::isinstance<nb::list>(value) || nb::isinstance<nb::tuple>(value);
}

std::vector<std::vector<std::int32_t>> to_shapes(nb::handle shapes) {
  std::vector<std::vector<std::int32_t>> result;
  bool is_valid = is_list_or_tuple(shapes);
  for (nb::handle shape : is_valid ? nb::borrow<nb::object>(shapes) : nb::list()) {
    is_valid = is_valid && is_list_or_tuple(shape);
    if (!is_valid) break;
    std::vector<std::int32_t>& sizes = result.emplace_back();
    for (nb::handle size : shape) sizes.push_back(to_int32(size, kName, "a dimension of shapes"));
  }
  if (!is_valid) {
    throw nb::type_error(error_message(kName, "shapes must be a tuple of tuples of int, got ",
                                       nb::repr(shapes).c_str())
                             .c_str());
  }
  return result;
}

// One dtype for all arrays, or one for each.
std::vector<StateArray> to_states(nb::handle shapes_argument, const nb::object& dtype) {
  std::vector<StateArray> states;
  auto shapes = to_shapes(shapes_argument);
  if (!is_list_or_tuple(dtype)) {
    const DType one = to_dtype(dtype);
    for (auto& shape : shapes) states.push_back({std::move(shape), one});
    return states;
  }
  if (nb::len(dtype) != shapes.size()) {
    throw_value_error(kName, "dtype must be one or as many as shapes, got ", nb::len(dtype),
                      " for ", shapes.size());
  }
  std::size_t i = 0;
  for (nb::handle each : dtype) {
    states.push_back({std::move(shapes[i++]), to_dtype(nb::borrow(each))});
  }
  return states;
}

nb::tuple shapes_of(const MambaSpec& spec) {
  nb::list shapes;
  for (const StateArray& state : spec.states()) {
    nb::list shape;
    for (std::int32_t size : state.shape) shape.append(size);
    shapes.append(nb::tuple(shape));
  }
  return nb::tuple(shapes);
}

nb::tuple dtypes_of(const MambaSpec& spec) {
  nb::list dtypes;
  for (const StateArray& state : spec.states()) dtypes.append(state.dtype.name());
  return nb::tuple(dtypes);
}

nb::object dtype_of(const MambaSpec& spec) {
  for (const StateArray& state : spec.states()) {
    if (state.dtype != spec.states().front().dtype) return dtypes_of(spec);
  }
  return nb::cast(spec.states().front().dtype.name());
}

MambaCacheMode to_cache_mode(nb::handle name) {
  if (!nb::isinstance<nb::str>(name)) {
    throw nb::type_error(
        error_message(kName, "cache_mode must be a str, got ", nb::repr(name).c_str()).c_str());
  }
  return mamba_cache_mode(nb::cast<std::string>(name));
}

nb::dict mamba_arguments(const MambaSpec& spec) {
  nb::dict arguments;
  arguments["page_size"] = spec.page_size();
  arguments["shapes"] = shapes_of(spec);
  arguments["dtype"] = dtype_of(spec);
  if (spec.page_size_padded()) arguments["page_size_padded"] = *spec.page_size_padded();
  if (spec.cache_mode() != MambaCacheMode::kNone) {
    arguments["cache_mode"] = std::string(to_string(spec.cache_mode()));
  }
  if (spec.num_speculative_pages() > 0) {
    arguments["num_speculative_pages"] = spec.num_speculative_pages();
  }
  return arguments;
}

}  // namespace

void bind_mamba_spec(nb::module_& m) {
  nb::class_<MambaSpec, CacheSpec> type(m, "MambaSpec", R"doc(
A layer with a state of fixed size: Mamba, linear attention, short convolution.

A page holds one whole state.
)doc");
  type.def(
          "__init__",
          [](MambaSpec* self, const nb::object& page_size, const nb::object& shapes,
             const nb::object& dtype, const nb::object& page_size_padded,
             const nb::object& cache_mode, const nb::object& num_speculative_pages) {
            new (self) MambaSpec(to_int32(page_size, kName, "page_size"), to_states(shapes, dtype),
                                 to_optional_int64(page_size_padded, kName, "page_size_padded"),
                                 to_cache_mode(cache_mode),
                                 to_int32(num_speculative_pages, kName, "num_speculative_pages"));
          },
          "page_size"_a.none(), "shapes"_a.none(), "dtype"_a.none(),
          "page_size_padded"_a = nb::none(), nb::kw_only(), "cache_mode"_a.none() = "none",
          "num_speculative_pages"_a.none() = 0,
          nb::sig("def __init__(self, page_size: int, "
                  "shapes: collections.abc.Sequence[collections.abc.Sequence[int]], "
                  "dtype: object, page_size_padded: int | None = None, *, "
                  "cache_mode: str = 'none', num_speculative_pages: int = 0) -> None"),
          R"doc(
Describes a layer by the arrays of one state.

Args:
  page_size: Tokens between states that are kept for others, at least 1.
  shapes: The shape of each array, without a batch axis: a tuple of tuples of int.
  dtype: Of all arrays, or a tuple with one for each. Names such as ``"bfloat16"``, or NumPy,
    ml_dtypes or JAX dtypes.
  page_size_padded: Bytes a page is padded to, at least those of a state. None: no padding.
  cache_mode: ``"none"``: a request keeps its running state. ``"align"``: also the state at a page
    end, from which other requests can start. vLLM's ``mamba_cache_mode``.
  num_speculative_pages: States kept for draft tokens that may be rejected.

Raises:
  TypeError: If an argument is of another type.
  ValueError: If a size is out of range, ``shapes`` is empty, or a name is unknown.

Example:

    >>> MambaSpec(1, ((16, 64), (16, 32)), "float32").page_size_bytes
    6144
)doc")
      .def_prop_ro("shapes", &shapes_of, nb::sig("def shapes(self) -> tuple[tuple[int, ...], ...]"),
                   "The shape of each array of a state.")
      .def_prop_ro("dtype", &dtype_of, nb::sig("def dtype(self) -> str | tuple[str, ...]"),
                   "Name of the element type; if the arrays differ, a tuple with one for each.")
      .def_prop_ro(
          "cache_mode",
          [](const MambaSpec& spec) { return std::string(to_string(spec.cache_mode())); },
          "``\"none\"`` or ``\"align\"``.")
      .def_prop_ro("num_speculative_pages", &MambaSpec::num_speculative_pages,
                   "States kept for draft tokens that may be rejected.")
      .def(
          "max_memory_usage_bytes",
          [](const MambaSpec& self, const nb::kwargs&) { return self.max_memory_usage_bytes({}); },
          "kwargs"_a, nb::sig("def max_memory_usage_bytes(self, **kwargs: object) -> int"),
          R"doc(
Bytes one layer needs for one request, however long: one state, in ``"align"`` mode two, and the
speculative ones (vLLM's page maths). All keywords are ignored.
)doc");
  bind_spec_value(type, mamba_arguments);
}

}  // namespace pagedkv
