#include "pagedkv/hash/extra_keys.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "bindings.h"
#include "gil.h"

namespace pagedkv {

void bind_extra_keys(nb::module_& m) {
  nb::class_<MultimodalItem>(m, "MultimodalItem", R"doc(
An image, a sound or the like: its placeholders are tokens ``offset .. offset + length - 1``.
)doc")
      .def(nb::init<std::string, std::int64_t, std::int64_t>(), "identifier"_a, "offset"_a,
           "length"_a, R"doc(
Args:
  identifier: Names the content: equal content, equal identifier, such as its hash.
  offset: Position of its first token.
  length: Number of its tokens.
)doc")
      .def_ro("identifier", &MultimodalItem::identifier)
      .def_ro("offset", &MultimodalItem::offset)
      .def_ro("length", &MultimodalItem::length)
      .def(
          "__eq__", [](const MultimodalItem& a, const MultimodalItem& b) { return a == b; },
          nb::is_operator(), nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__hash__",
           [](const MultimodalItem& item) {
             return nb::hash(nb::make_tuple(item.identifier, item.offset, item.length));
           })
      .def("__repr__", [](const MultimodalItem& item) {
        return nb::str("MultimodalItem({!r}, offset={}, length={})")
            .format(item.identifier, item.offset, item.length);
      });

  using Rows = nb::ndarray<const std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
  nb::class_<PromptEmbeds>(m, "PromptEmbeds", R"doc(
Digests of the embeddings that a prompt gives in place of tokens, one for each page they reach.
)doc")
      .def(
          "__init__",
          [](PromptEmbeds* self, const Rows& rows, std::int32_t page_size) {
            const auto bytes = std::as_bytes(std::span(rows.data(), rows.size()));
            constexpr std::size_t kBytesPerPageOfTokens = 64;  // so much takes as long as a page
            without_gil_if_long(static_cast<std::int64_t>(bytes.size() / kBytesPerPageOfTokens),
                                [&] { new (self) PromptEmbeds(bytes, rows.shape(0), page_size); });
          },
          "rows"_a, "page_size"_a, R"doc(
Hashes ``rows``, and keeps the digests only.

Args:
  rows: uint8, shape ``[n, bytes]``: the embeddings of the first ``n`` tokens, in memory order.
    ``pagedkv.hashing.prompt_embeds`` takes other dtypes.
  page_size: Tokens a page holds, as in the manager that will see the request.

Raises:
  ValueError: If ``page_size`` is below 1, or ``rows`` is empty.
)doc")
      .def_prop_ro("page_size", &PromptEmbeds::page_size)
      .def_prop_ro("num_rows", &PromptEmbeds::num_rows, "Tokens that have an embedding.")
      .def("__repr__", [](const PromptEmbeds& embeds) {
        return nb::str("PromptEmbeds(num_rows={}, page_size={})")
            .format(embeds.num_rows(), embeds.page_size());
      });
}

}  // namespace pagedkv
