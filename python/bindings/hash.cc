#include <nanobind/stl/optional.h>
#include <nanobind/stl/string_view.h>

#include <optional>
#include <span>
#include <string_view>

#include "arrays.h"
#include "bindings.h"
#include "digests.h"
#include "pagedkv/hash/page_hasher.h"
#include "pagedkv/hash/sha256.h"

namespace pagedkv {
namespace {

std::span<const std::byte> view(const nb::bytes& bytes) {
  return {static_cast<const std::byte*>(bytes.data()), bytes.size()};
}

nb::bytes hash_tokens(const nb::bytes& parent, nb::handle tokens,
                      const std::optional<nb::bytes>& extra) {
  return bytes_of(hash_page(page_hash_of(parent, "hash_page", "parent"),
                            int32_values(tokens, "hash_page", "tokens"),
                            extra ? view(*extra) : std::span<const std::byte>()));
}

constexpr const char* kSha256Doc = R"(Computes the SHA-256 digest of ``data``.

Args:
  data: The message, of any length.

Returns:
  32 bytes, as ``hashlib.sha256(data).digest()`` gives them.

Example:
  >>> sha256(b"abc").hex()[:8]
  'ba7816bf'
)";

constexpr const char* kNoneHashDoc = R"(Computes the parent digest of a first page.

Args:
  seed: Caches with different seeds share nothing. The default is vLLM's.

Returns:
  32 bytes: SHA-256 of the canonical CBOR of ``seed``.

Example:
  >>> none_hash().hex()[:8]
  '9bd96a48'
)";

constexpr const char* kHashPageDoc = R"(Computes the digest of a full page (vLLM's ``sha256_cbor``).

Args:
  parent: Digest of the page before, 32 bytes; ``none_hash()`` for the first page.
  tokens: int32, shape ``[page_size]``, or a sequence of ints in the range of int32.
  extra: Canonical CBOR of the page's extra keys. ``None`` or empty if it has none.

Returns:
  32 bytes: SHA-256 of the canonical CBOR of ``(parent, tokens, extra keys or null)``.

Raises:
  ValueError: If ``parent`` is not 32 bytes, or a token does not fit in int32.
  TypeError: If ``tokens`` are not integers in one dimension.

Example:
  >>> hash_page(none_hash(), range(1000, 1016)).hex()[:8]
  '15528b72'
)";

}  // namespace

void bind_hash(nb::module_& m) {
  m.def(
      "sha256",
      [](const nb::bytes& data) {
        const Sha256Digest digest = sha256(view(data));
        return nb::bytes(digest.data(), digest.size());
      },
      "data"_a, kSha256Doc);
  m.def(
      "none_hash", [](std::string_view seed) { return bytes_of(none_hash(seed)); },
      "seed"_a = kDefaultHashSeed, kNoneHashDoc);
  m.def("hash_page", &hash_tokens, "parent"_a, "tokens"_a, "extra"_a = nb::none(), kHashPageDoc);
}

}  // namespace pagedkv
