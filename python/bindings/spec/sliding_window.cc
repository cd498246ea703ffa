#include "spec_bindings.h"

namespace pagedkv {
namespace {

nb::dict window_arguments(const SlidingWindowSpec& spec) {
  nb::dict arguments = arguments_of(spec.layout());
  arguments["sliding_window"] = spec.sliding_window();
  return arguments;
}

}  // namespace

void bind_sliding_window_spec(nb::module_& m) {
  nb::class_<SlidingWindowSpec, AttentionSpec> type(m, "SlidingWindowSpec", R"doc(
A layer whose attention sees the last ``sliding_window`` tokens. A latent cache may slide too.
)doc");
  type.def(
          "__init__",
          [](SlidingWindowSpec* self, nb::object page_size, nb::object num_kv_heads,
             nb::object head_size, nb::object dtype, nb::object use_mla, nb::object sliding_window,
             nb::object head_size_v, nb::object page_size_padded) {
            constexpr auto kName = SlidingWindowSpec::kName;
            new (self)
                SlidingWindowSpec(to_layout(kName, {page_size, num_kv_heads, head_size, dtype,
                                                    use_mla, head_size_v, page_size_padded}),
                                  to_int32(sliding_window, kName, "sliding_window"));
          },
          "page_size"_a.none(), "num_kv_heads"_a.none(), "head_size"_a.none(), "dtype"_a.none(),
          "use_mla"_a.none() = false, "sliding_window"_a = nb::none(), nb::kw_only(),
          "head_size_v"_a = nb::none(), "page_size_padded"_a = nb::none(),
          nb::sig("def __init__(self, page_size: int, num_kv_heads: int, head_size: int, "
                  "dtype: object, use_mla: bool = False, sliding_window: int = ..., *, "
                  "head_size_v: int | None = None, page_size_padded: int | None = None) -> None"),
          R"doc(
Describes a layer by the K/V of one token and what attention sees.

Args:
  page_size: Tokens a page holds, at least 1.
  num_kv_heads: Rows of K a token has, and of V; at least 1.
  head_size: Elements of a row of K, at least 1.
  dtype: Name such as ``"bfloat16"``, or a NumPy, ml_dtypes or JAX dtype.
  use_mla: One latent row of ``head_size`` stands for K and V. The same as ``head_size_v=0``.
  sliding_window: Tokens attention sees, the token itself included; at least 1. Required.
  head_size_v: Elements of a row of V. None: ``head_size``, or 0 with ``use_mla``.
  page_size_padded: Bytes a page is padded to, at least those of its data. None: no padding.

Raises:
  TypeError: If an argument is of another type, or ``sliding_window`` is missing.
  ValueError: If a size is out of range, the dtype is unknown, or a page is not whole bytes.

Example:

    >>> SlidingWindowSpec(16, 1, 64, "int8", sliding_window=512).max_memory_usage_bytes(8192, 1)
    67584
)doc")
      .def_prop_ro("sliding_window", &SlidingWindowSpec::sliding_window,
                   "Tokens attention sees, the token itself included.")
      .def(
          "max_memory_usage_bytes",
          [](const SlidingWindowSpec& self, const nb::object& max_model_len,
             const nb::object& max_num_batched_tokens, const nb::kwargs&) {
            return self.max_memory_usage_bytes(
                {.max_model_len = to_limit(max_model_len, "max_model_len"),
                 .max_num_batched_tokens =
                     to_limit(max_num_batched_tokens, "max_num_batched_tokens")});
          },
          "max_model_len"_a.none(), "max_num_batched_tokens"_a.none(), "kwargs"_a,
          nb::sig("def max_memory_usage_bytes(self, max_model_len: int, "
                  "max_num_batched_tokens: int, **kwargs: object) -> int"),
          R"doc(
Bytes one layer needs for one request: the window before a step and the step's tokens, in whole
pages, and a page more since a window need not begin where a page does (vLLM's page maths).

Other keywords are ignored, so that specs of all types can be asked alike.

Args:
  max_model_len: Tokens of the longest request.
  max_num_batched_tokens: Tokens the largest step computes.

Raises:
  ValueError: If a limit is negative.
)doc");
  bind_spec_value(type, window_arguments);
}

}  // namespace pagedkv
