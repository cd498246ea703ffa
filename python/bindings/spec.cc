#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "pagedkv/error.h"
#include "pagedkv/spec/cache_group_spec.h"

namespace pagedkv {
namespace {

// A dtype by name, or anything `numpy.dtype` understands: NumPy, ml_dtypes and JAX dtypes.
DType to_dtype(const nb::object& dtype) {
  if (nb::isinstance<nb::str>(dtype)) return DType(nb::cast<std::string>(dtype));
  try {
    return DType(
        nb::cast<std::string>(nb::module_::import_("numpy").attr("dtype")(dtype).attr("name")));
  } catch (const nb::python_error&) {
    throw nb::type_error(
        error_message("DType", "must be a dtype or its name, got ", nb::repr(dtype).c_str())
            .c_str());
  }
}

}  // namespace

void bind_spec(nb::module_& m) {
  nb::class_<CacheSpec>(m, "CacheSpec", "What one layer keeps in the cache. Immutable.")
      .def_prop_ro("page_size", &CacheSpec::page_size, "Tokens a page holds.")
      .def_prop_ro("page_size_bytes", &CacheSpec::page_size_bytes,
                   "Bytes one page of one layer takes.");

  nb::class_<AttentionSpec, CacheSpec>(m, "AttentionSpec", "A layer that keeps K and V of tokens.")
      .def_prop_ro("num_kv_heads", &AttentionSpec::num_kv_heads)
      .def_prop_ro("head_size", &AttentionSpec::head_size, "Elements of one head's row.")
      .def_prop_ro(
          "dtype", [](const AttentionSpec& spec) { return spec.dtype().name(); },
          "Name of the element type, as NumPy and JAX give it.")
      .def_prop_ro("use_mla", &AttentionSpec::use_mla,
                   "True iff one latent row stands for K and V (multi-head latent attention).");

  nb::class_<FullAttentionSpec, AttentionSpec>(
      m, "FullAttentionSpec", "A layer whose attention sees every earlier token: all K/V is kept.")
      .def(
          "__init__",
          [](FullAttentionSpec* self, std::int32_t page_size, std::int32_t num_kv_heads,
             std::int32_t head_size, const nb::object& dtype, bool use_mla) {
            new (self)
                FullAttentionSpec(page_size, num_kv_heads, head_size, to_dtype(dtype), use_mla);
          },
          "page_size"_a, "num_kv_heads"_a, "head_size"_a, "dtype"_a, "use_mla"_a = false, R"doc(
Describes a layer by the K/V of one token: ``num_kv_heads`` rows of ``head_size``.

Args:
  page_size: Tokens a page holds, at least 1.
  num_kv_heads: At least 1.
  head_size: Elements of one head's row, at least 1.
  dtype: Name such as ``"bfloat16"``, or a NumPy, ml_dtypes or JAX dtype.
  use_mla: One latent row stands for K and V.

Raises:
  ValueError: If a size is below 1, the dtype is unknown, or a page is not whole bytes.
  TypeError: If ``dtype`` is no dtype.

Example:

    >>> FullAttentionSpec(16, 3, 64, "bfloat16").page_size_bytes
    12288
)doc");

  nb::class_<CacheGroupSpec>(m, "CacheGroupSpec",
                             "Layers that share one page table: own tensors, same page ids.")
      .def(
          "__init__",
          [](CacheGroupSpec* self, AnyCacheSpec kv_cache_spec,
             std::vector<std::string> layer_names) {
            new (self) CacheGroupSpec{std::move(kv_cache_spec), std::move(layer_names)};
          },
          "kv_cache_spec"_a, "layer_names"_a = nb::list(), R"doc(
Groups layers that all have one spec.

Args:
  kv_cache_spec: What each of the layers keeps.
  layer_names: Names of the layers, for the reader.
)doc")
      .def_ro("kv_cache_spec", &CacheGroupSpec::kv_cache_spec)
      .def_ro("layer_names", &CacheGroupSpec::layer_names);
}

}  // namespace pagedkv
