#include "spec_bindings.h"

namespace pagedkv {

void bind_base_specs(nb::module_& m) {
  nb::class_<CacheSpec>(m, "CacheSpec", R"doc(
What one layer keeps in the cache, and in pages of what size.

Specs are immutable values: compared and hashed by what they say, and can be pickled. The names and
the arithmetic of pages are vLLM's and EasyDeL's, with "page" for "block". The type of a layer is
one of the classes below; this one is for ``isinstance``.
)doc")
      .def_prop_ro("page_size", &CacheSpec::page_size, "Tokens a page holds.")
      .def_prop_ro("page_size_bytes", &CacheSpec::page_size_bytes,
                   "Bytes one page of one layer takes: ``page_size_padded`` if that is set.")
      .def_prop_ro("real_page_size_bytes", &CacheSpec::real_page_size_bytes,
                   "Bytes of a page that carry data.")
      .def_prop_ro("page_size_padded", &CacheSpec::page_size_padded,
                   "Bytes a page is padded to, or None.")
      .def_prop_ro("type_id", &CacheSpec::type_id, R"doc(
Equal for layers that ask the same of a page table, such as ``"full_attention_16_12288"``.
)doc")
      .def_prop_ro(
          "kind", [](const CacheSpec& spec) { return std::string(spec.kind()); },
          "The kind of cache by the name vLLM's KV events give it: ``\"mla_attention\"``, …");

  nb::class_<AttentionSpec, CacheSpec>(m, "AttentionSpec",
                                       "A layer that keeps K and V of tokens. For ``isinstance``.")
      .def_prop_ro("num_kv_heads", &AttentionSpec::num_kv_heads, "Rows of K a token has, and of V.")
      .def_prop_ro("head_size", &AttentionSpec::head_size, "Elements of a row of K.")
      .def_prop_ro("head_size_v", &AttentionSpec::head_size_v,
                   "Elements of a row of V. 0 for a latent cache.")
      .def_prop_ro(
          "dtype", [](const AttentionSpec& spec) { return spec.dtype().name(); },
          "Name of the element type, as NumPy and JAX give it.")
      .def_prop_ro("use_mla", &AttentionSpec::use_mla,
                   "True iff one latent row stands for K and V (multi-head latent attention).");
}

}  // namespace pagedkv
