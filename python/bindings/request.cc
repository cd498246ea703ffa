#include "pagedkv/manager/request.h"

#include <nanobind/stl/string.h>

#include "arrays.h"
#include "bindings.h"
#include "digests.h"

namespace pagedkv {

void bind_request(nb::module_& m) {
  nb::class_<Request>(m, "Request", R"doc(
The tokens of one sequence, owned by C++, and the digests of its full pages.

Tokens are only ever appended. A request holds pages of one manager at a time.
)doc")
      .def(
          "__init__",
          [](Request* self, std::string request_id, nb::handle tokens) {
            new (self) Request(std::move(request_id), int32_values(tokens, "Request", "tokens"));
          },
          "request_id"_a, "tokens"_a, R"doc(
Copies the prompt.

Args:
  request_id: A name for messages; nothing depends on its being unique.
  tokens: Token ids, shape ``[n]``: an integer array (int32 is fastest) or a sequence of int.

Raises:
  TypeError: If ``tokens`` are not integers in one dimension.
  ValueError: If a token does not fit in int32.

Example:

    >>> request = Request("a", [11, 12])
    >>> request.append(13)
    >>> request.num_tokens, request.tokens.tolist()
    (3, [11, 12, 13])
)doc")
      .def_prop_ro("request_id", &Request::request_id)
      .def_prop_ro("num_tokens", &Request::num_tokens, "Prompt and output so far.")
      .def_prop_ro("num_computed_tokens", &Request::num_computed_tokens,
                   "Tokens whose K/V is in pages the request holds; 0 while it holds none.")
      .def_prop_ro("is_allocated", &Request::is_allocated,
                   "Whether the request holds pages of a manager.")
      .def_prop_ro(
          "tokens", [](const Request& request) { return copy_of(request.tokens()); },
          nb::rv_policy::move, "A copy of the tokens: int32, shape ``[num_tokens]``.")
      .def(
          "append", [](Request& request, TokenId token) { request.append(token); }, "token"_a,
          "Appends one token.")
      .def(
          "append",
          [](Request& request, nb::handle tokens) {
            request.append(int32_values(tokens, "Request.append", "tokens"));
          },
          "tokens"_a, R"doc(
Appends tokens: an integer array of one dimension, or a sequence of int.

Raises:
  TypeError: If ``tokens`` are not integers in one dimension.
  ValueError: If a token does not fit in int32; then none is appended.
)doc")
      .def(
          "page_hash",
          [](Request& request, std::int32_t page) { return bytes_of(request.page_hash(page)); },
          "page"_a, R"doc(
The digest that names the content of full page ``page``: equal for requests that share it.

Pages are of the size of the manager that last saw the request (``match`` or ``allocate``).

Raises:
  ValueError: If no manager has seen the request yet.
  IndexError: If page ``page`` is not full.
)doc")
      .def("__repr__", [](const Request& request) {
        return nb::str("Request({!r}, num_tokens={}, num_computed_tokens={})")
            .format(request.request_id(), request.num_tokens(), request.num_computed_tokens());
      });
}

}  // namespace pagedkv
