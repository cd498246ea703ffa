#include "spec_bindings.h"

namespace pagedkv {
namespace {

nb::dict cross_arguments(const CrossAttentionSpec& spec) { return arguments_of(spec.layout()); }

}  // namespace

void bind_cross_attention_spec(nb::module_& m) {
  nb::class_<CrossAttentionSpec, AttentionSpec> type(m, "CrossAttentionSpec", R"doc(
A layer that attends to an encoder's output, whose K/V is kept as long as the request lives.
)doc");
  type.def(
          "__init__",
          [](CrossAttentionSpec* self, nb::object page_size, nb::object num_kv_heads,
             nb::object head_size, nb::object dtype, nb::object use_mla, nb::object head_size_v,
             nb::object page_size_padded) {
            new (self) CrossAttentionSpec(
                to_layout(CrossAttentionSpec::kName, {page_size, num_kv_heads, head_size, dtype,
                                                      use_mla, head_size_v, page_size_padded}));
          },
          "page_size"_a.none(), "num_kv_heads"_a.none(), "head_size"_a.none(), "dtype"_a.none(),
          "use_mla"_a.none() = false, nb::kw_only(), "head_size_v"_a = nb::none(),
          "page_size_padded"_a = nb::none(),
          nb::sig("def __init__(self, page_size: int, num_kv_heads: int, head_size: int, "
                  "dtype: object, use_mla: bool = False, *, head_size_v: int | None = None, "
                  "page_size_padded: int | None = None) -> None"),
          R"doc(
Describes a layer by the K/V of one token of the encoder.

Args:
  page_size: Encoder tokens a page holds, at least 1.
  num_kv_heads: Rows of K a token has, and of V; at least 1.
  head_size: Elements of a row of K, at least 1.
  dtype: Name such as ``"bfloat16"``, or a NumPy, ml_dtypes or JAX dtype.
  use_mla: One latent row of ``head_size`` stands for K and V. The same as ``head_size_v=0``.
  head_size_v: Elements of a row of V. None: ``head_size``, or 0 with ``use_mla``.
  page_size_padded: Bytes a page is padded to, at least those of its data. None: no padding.

Raises:
  TypeError: If an argument is of another type.
  ValueError: If a size is out of range, the dtype is unknown, or a page is not whole bytes.
)doc")
      .def(
          "max_memory_usage_bytes",
          [](const CrossAttentionSpec& self, const nb::object& max_encoder_tokens,
             const nb::kwargs&) {
            return self.max_memory_usage_bytes(
                {.max_encoder_tokens = to_limit(max_encoder_tokens, "max_encoder_tokens")});
          },
          nb::kw_only(), "max_encoder_tokens"_a.none(), "kwargs"_a,
          nb::sig("def max_memory_usage_bytes(self, *, max_encoder_tokens: int, "
                  "**kwargs: object) -> int"),
          R"doc(
Bytes one layer needs for an encoder input of ``max_encoder_tokens`` tokens, in whole pages.

Other keywords are ignored, so that specs of all types can be asked alike.

Raises:
  ValueError: If ``max_encoder_tokens`` is negative.
)doc");
  bind_spec_value(type, cross_arguments);
}

}  // namespace pagedkv
