#include "spec_bindings.h"

namespace pagedkv {
namespace {

nb::dict full_arguments(const FullAttentionSpec& spec) {
  nb::dict arguments = arguments_of(spec.layout());
  if (spec.sliding_window()) arguments["sliding_window"] = *spec.sliding_window();
  if (spec.attention_chunk_size()) {
    arguments["attention_chunk_size"] = *spec.attention_chunk_size();
  }
  return arguments;
}

nb::dict sink_arguments(const SinkFullAttentionSpec& spec) {
  nb::dict arguments = full_arguments(spec);
  arguments["sink_len"] = spec.sink_len();
  return arguments;
}

std::optional<std::int32_t> merge_window_sizes(nb::handle window_sizes) {
  std::vector<std::int32_t> sizes;
  for (nb::handle size : window_sizes) {
    sizes.push_back(to_int32(size, FullAttentionSpec::kName, "a window size"));
  }
  return FullAttentionSpec::merge_window_sizes(sizes);
}

void bind_full(nb::module_& m) {
  nb::class_<FullAttentionSpec, AttentionSpec> type(
      m, "FullAttentionSpec", "A layer whose attention sees every earlier token: all K/V is kept.");
  type.def(
          "__init__",
          [](FullAttentionSpec* self, nb::object page_size, nb::object num_kv_heads,
             nb::object head_size, nb::object dtype, nb::object use_mla, nb::object sliding_window,
             nb::object attention_chunk_size, nb::object head_size_v, nb::object page_size_padded) {
            constexpr auto kName = FullAttentionSpec::kName;
            new (self) FullAttentionSpec(
                to_layout(kName, {page_size, num_kv_heads, head_size, dtype, use_mla, head_size_v,
                                  page_size_padded}),
                to_optional_int32(sliding_window, kName, "sliding_window"),
                to_optional_int32(attention_chunk_size, kName, "attention_chunk_size"));
          },
          "page_size"_a.none(), "num_kv_heads"_a.none(), "head_size"_a.none(), "dtype"_a.none(),
          "use_mla"_a.none() = false, "sliding_window"_a = nb::none(),
          "attention_chunk_size"_a = nb::none(), nb::kw_only(), "head_size_v"_a = nb::none(),
          "page_size_padded"_a = nb::none(),
          nb::sig("def __init__(self, page_size: int, num_kv_heads: int, head_size: int, "
                  "dtype: object, use_mla: bool = False, sliding_window: int | None = None, "
                  "attention_chunk_size: int | None = None, *, head_size_v: int | None = None, "
                  "page_size_padded: int | None = None) -> None"),
          R"doc(
Describes a layer by the K/V of one token.

Args:
  page_size: Tokens a page holds, at least 1.
  num_kv_heads: Rows of K a token has, and of V; at least 1.
  head_size: Elements of a row of K, at least 1.
  dtype: Name such as ``"bfloat16"``, or a NumPy, ml_dtypes or JAX dtype.
  use_mla: One latent row of ``head_size`` stands for K and V. The same as ``head_size_v=0``.
  sliding_window: Tokens the layer's attention sees, where it computes with a window although its
    pages are kept as for full attention.
  attention_chunk_size: The same for chunks.
  head_size_v: Elements of a row of V. None: ``head_size``, or 0 with ``use_mla``.
  page_size_padded: Bytes a page is padded to, at least those of its data. None: no padding.

Raises:
  TypeError: If an argument is of another type.
  ValueError: If a size is out of range, the dtype is unknown, or a page is not whole bytes.

Example:

    >>> FullAttentionSpec(16, 3, 64, "bfloat16").page_size_bytes
    12288
)doc")
      .def_prop_ro("sliding_window", &FullAttentionSpec::sliding_window,
                   "Tokens attention sees, if it computes with a window, else None.")
      .def_prop_ro("attention_chunk_size", &FullAttentionSpec::attention_chunk_size,
                   "Tokens of the chunks attention sees, if it computes in chunks, else None.")
      .def(
          "max_memory_usage_bytes",
          [](const FullAttentionSpec& self, const nb::object& max_model_len, const nb::kwargs&) {
            return self.max_memory_usage_bytes(
                {.max_model_len = to_limit(max_model_len, "max_model_len")});
          },
          "max_model_len"_a.none(), "kwargs"_a,
          nb::sig("def max_memory_usage_bytes(self, max_model_len: int, **kwargs: object) -> int"),
          R"doc(
Bytes one layer needs for a request of ``max_model_len`` tokens, in whole pages.

Other keywords are ignored, so that specs of all types can be asked alike.

Raises:
  ValueError: If ``max_model_len`` is negative.
)doc")
      .def_static("merge_window_sizes", &merge_window_sizes, "window_sizes"_a,
                  nb::sig("def merge_window_sizes(window_sizes: "
                          "collections.abc.Iterable[int]) -> int | None"),
                  R"doc(
The one window (or chunk) size of a group's layers, where ``window_sizes`` are those that are set.

Returns:
  None if none is set.

Raises:
  ValueError: If they differ.
)doc");
  bind_spec_value(type, full_arguments);
}

void bind_sink(nb::module_& m) {
  nb::class_<SinkFullAttentionSpec, FullAttentionSpec> type(m, "SinkFullAttentionSpec", R"doc(
Full attention whose first ``sink_len`` tokens, the attention sink, stay for every request.

The idea and the name are vLLM's.
)doc");
  type.def(
          "__init__",
          [](SinkFullAttentionSpec* self, nb::object page_size, nb::object num_kv_heads,
             nb::object head_size, nb::object dtype, nb::object use_mla, nb::object sliding_window,
             nb::object attention_chunk_size, nb::object sink_len, nb::object head_size_v,
             nb::object page_size_padded) {
            constexpr auto kName = SinkFullAttentionSpec::kName;
            new (self) SinkFullAttentionSpec(
                to_layout(kName, {page_size, num_kv_heads, head_size, dtype, use_mla, head_size_v,
                                  page_size_padded}),
                to_int32(sink_len, kName, "sink_len"),
                to_optional_int32(sliding_window, kName, "sliding_window"),
                to_optional_int32(attention_chunk_size, kName, "attention_chunk_size"));
          },
          "page_size"_a.none(), "num_kv_heads"_a.none(), "head_size"_a.none(), "dtype"_a.none(),
          "use_mla"_a.none() = false, "sliding_window"_a = nb::none(),
          "attention_chunk_size"_a = nb::none(), nb::kw_only(), "sink_len"_a.none(),
          "head_size_v"_a = nb::none(), "page_size_padded"_a = nb::none(),
          nb::sig("def __init__(self, page_size: int, num_kv_heads: int, head_size: int, "
                  "dtype: object, use_mla: bool = False, sliding_window: int | None = None, "
                  "attention_chunk_size: int | None = None, *, sink_len: int, "
                  "head_size_v: int | None = None, page_size_padded: int | None = None) -> None"),
          R"doc(
Describes a layer with a sink. Arguments are those of ``FullAttentionSpec``, and:

Args:
  sink_len: Tokens at the start that attention always sees: a positive multiple of ``page_size``.

Raises:
  TypeError: If an argument is of another type.
  ValueError: As ``FullAttentionSpec``, and if ``sink_len`` is no positive multiple of
    ``page_size``.
)doc")
      .def_prop_ro("sink_len", &SinkFullAttentionSpec::sink_len,
                   "Tokens at the start that attention always sees.");
  bind_spec_value(type, sink_arguments);
}

}  // namespace

void bind_full_attention_spec(nb::module_& m) {
  bind_full(m);
  bind_sink(m);
}

}  // namespace pagedkv
