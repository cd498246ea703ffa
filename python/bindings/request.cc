#include "pagedkv/manager/request.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arrays.h"
#include "bindings.h"
#include "digests.h"
#include "gil.h"

namespace pagedkv {
namespace {

using Lora = std::optional<std::pair<std::string, std::string>>;

// Tokens of an answer that are appended without moving the prompt.
constexpr std::size_t kRoomForAnswer = 256;

void init_request(Request* self, std::string request_id, nb::handle tokens, Lora lora,
                  std::vector<MultimodalItem> mm_items, std::optional<std::string> cache_salt,
                  std::optional<PromptEmbeds> prompt_embeds, std::int32_t num_encoder_tokens,
                  const Retention* retention) {
  auto lora_key = lora ? std::optional<LoraKey>({lora->first, lora->second}) : std::nullopt;
  new (self)
      Request(std::move(request_id), int32_values(tokens, "Request", "tokens", kRoomForAnswer),
              ExtraKeys(std::move(lora_key), std::move(mm_items), std::move(cache_salt),
                        std::move(prompt_embeds)),
              num_encoder_tokens);
  if (retention != nullptr) self->retain(std::make_shared<const Retention>(*retention));
}

DigestArray page_hashes(Request& request, std::size_t first_page) {
  const ExclusiveUse use(request.use_flag(), "Request.page_hashes", "request");
  const auto hashes = request.page_hashes();
  return array_of(hashes.subspan(std::min(first_page, hashes.size())),
                  request.hasher().algorithm());
}

nb::object lora_of(const Request& request) {
  const auto& lora = request.extra_keys().lora();
  return lora ? nb::object(nb::make_tuple(lora->name, lora->path)) : nb::none();
}

}  // namespace

void bind_request(nb::module_& m) {
  nb::class_<Request>(m, "Request", R"doc(
The tokens of one sequence, owned by C++, and the digests of its full pages.

Tokens are only ever appended. A request holds pages of one manager at a time. What besides the
tokens decides the content of its pages is given once: pages with different keys are never shared.
)doc")
      .def("__init__", &init_request, "request_id"_a, "tokens"_a, nb::kw_only(),
           "lora"_a = nb::none(), "mm_items"_a = nb::make_tuple(), "cache_salt"_a = nb::none(),
           "prompt_embeds"_a = nb::none(), "num_encoder_tokens"_a = 0,
           "retention"_a.none() = nb::none(), R"doc(
Copies the prompt.

Args:
  request_id: A name for messages; nothing depends on its being unique.
  tokens: Token ids, shape ``[n]``: an integer array (int32 is fastest) or a sequence of int.
  lora: The adapter, as ``(name, path)``. Decides every page.
  mm_items: ``MultimodalItem``s, in any order. Each decides the pages it reaches, and so those
    behind them.
  cache_salt: Requests with different salts share nothing: one for each tenant keeps them apart.
  prompt_embeds: Embeddings in place of the prompt's first tokens, as ``PromptEmbeds``.
  num_encoder_tokens: Tokens of the encoder's output, for layers of cross attention.
  retention: How its pages are to be kept once nobody holds them; as all others if None.

Raises:
  TypeError: If ``tokens`` are not integers in one dimension.
  ValueError: If a token does not fit in int32; for an empty name, identifier or salt; for items
    and embeddings that the tokens do not hold.

Example:

    >>> request = Request("a", [11, 12])
    >>> request.append(13)
    >>> request.num_tokens, request.tokens.tolist()
    (3, [11, 12, 13])
)doc")
      .def_prop_ro("request_id", &Request::request_id)
      .def_prop_ro("num_tokens", &Request::num_tokens, "Prompt and output so far.")
      .def_prop_ro("num_encoder_tokens", &Request::num_encoder_tokens,
                   "Tokens of the encoder's output.")
      .def_prop_ro("num_computed_tokens", &Request::num_computed_tokens,
                   "Tokens whose K/V is in pages the request holds; 0 while it holds none.")
      .def_prop_ro("is_allocated", &Request::is_allocated,
                   "Whether the request holds pages of a manager.")
      .def_prop_ro(
          "tokens", [](const Request& request) { return copy_of(request.tokens()); },
          "A copy of the tokens: int32, shape ``[num_tokens]``.")
      .def(
          "append",
          [](Request& request, TokenId token) {
            const ExclusiveUse use(request.use_flag(), "Request.append", "request");
            request.append(token);
          },
          "token"_a, "Appends one token.")
      .def(
          "append",
          [](Request& request, nb::handle tokens) {
            const auto values = int32_values(tokens, "Request.append", "tokens");
            const ExclusiveUse use(request.use_flag(), "Request.append", "request");
            request.append(values);
          },
          "tokens"_a, R"doc(
Appends tokens: an integer array of one dimension, or a sequence of int.

Raises:
  TypeError: If ``tokens`` are not integers in one dimension.
  ValueError: If a token does not fit in int32; then none is appended.
)doc")
      .def(
          "truncate",
          [](Request& request, std::int32_t num_tokens) {
            const ExclusiveUse use(request.use_flag(), "Request.truncate", "request");
            request.truncate(num_tokens);
          },
          "num_tokens"_a, R"doc(
Takes off all but the first ``num_tokens`` tokens: guesses of a draft model that were rejected.

Commit the tokens that were accepted, and no more, before. Room that there was for the others stays.

Raises:
  ValueError: If there are fewer tokens, if more are computed, or if more are covered by multimodal
    items or prompt embeddings.

Example:

    >>> request = Request("a", [11, 12])
    >>> request.append([13, 14, 15])
    >>> request.truncate(4)
    >>> request.tokens.tolist()
    [11, 12, 13, 14]
)doc")
      .def(
          "copy",
          [](const Request& request, std::string request_id) {
            const auto tokens = request.tokens();
            auto copy = std::make_unique<Request>(
                std::move(request_id), std::vector(tokens.begin(), tokens.end()),
                request.extra_keys(), request.num_encoder_tokens());
            copy->retain_as(request);
            return copy;
          },
          "request_id"_a, R"doc(
A request of the same tokens, extra keys and retention, which holds no pages: for ``CacheManager.fork``.

Example:

    >>> Request("a", [11, 12]).copy("b")
    Request('b', num_tokens=2, num_computed_tokens=0)
)doc")
      .def(
          "page_hash",
          [](Request& request, std::int32_t page) {
            const ExclusiveUse use(request.use_flag(), "Request.page_hash", "request");
            const PageHash& digest = request.page_hash(page);
            return bytes_of(digest, request.hasher().algorithm());
          },
          "page"_a, R"doc(
The digest that names the content of full page ``page``: equal for requests that share it.

Pages are of the size of the manager that last saw the request (``match`` or ``allocate``).

Raises:
  ValueError: If no manager has seen the request yet.
  IndexError: If page ``page`` is not full.
)doc")
      .def("page_hashes", &page_hashes, nb::kw_only(), "first_page"_a = 0, R"doc(
The digests of all full pages from ``first_page`` on, for routers, events and shared stores.

Pages are of the size of the manager that last saw the request (``match`` or ``allocate``).

Returns:
  A fresh uint8 array, shape ``[pages, digest_bytes]``.

Raises:
  ValueError: If no manager has seen the request yet.
)doc")
      .def_prop_ro("lora", &lora_of, nb::sig("def lora(self) -> tuple[str, str] | None"),
                   "Name and path of the adapter.")
      .def_prop_ro(
          "mm_items",
          [](const Request& request) {
            const auto items = request.extra_keys().mm_items();
            return std::vector<MultimodalItem>(items.begin(), items.end());
          },
          "The multimodal items, by rising offset.")
      .def_prop_ro("cache_salt",
                   [](const Request& request) { return request.extra_keys().cache_salt(); })
      .def_prop_ro(
          "retention",
          [](const Request& request) {
            return request.retention() == nullptr ? std::nullopt
                                                  : std::optional(*request.retention());
          },
          "How its pages are to be kept, or None.")
      .def("__repr__", [](const Request& request) {
        return nb::str("Request({!r}, num_tokens={}, num_computed_tokens={})")
            .format(request.request_id(), request.num_tokens(), request.num_computed_tokens());
      });
}

}  // namespace pagedkv
