#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "bindings.h"
#include "pagedkv/error.h"
#include "pagedkv/hash/page_hasher.h"
#include "pagedkv/hash/sha256.h"

namespace pagedkv {
namespace {

using TokenArray = nb::ndarray<const TokenId, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

std::span<const std::byte> view(const nb::bytes& bytes) {
  return {static_cast<const std::byte*>(bytes.data()), bytes.size()};
}

nb::bytes to_bytes(std::span<const std::byte> digest) {
  return nb::bytes(digest.data(), digest.size());
}

PageHash to_page_hash(const nb::bytes& digest) {
  PageHash hash;
  if (digest.size() != hash.bytes.size()) {
    throw_value_error("hash_page", "parent must be ", hash.bytes.size(), " bytes, got ",
                      digest.size());
  }
  std::ranges::copy(view(digest), hash.bytes.begin());
  return hash;
}

nb::bytes hash_tokens(const nb::bytes& parent, std::span<const TokenId> tokens,
                      const std::optional<nb::bytes>& extra) {
  const auto extra_bytes = extra ? view(*extra) : std::span<const std::byte>();
  return to_bytes(hash_page(to_page_hash(parent), tokens, extra_bytes).bytes);
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
  ValueError: If ``parent`` is not 32 bytes.
  TypeError: If ``tokens`` is not one-dimensional, or holds something else than int32 values.

Example:
  >>> hash_page(none_hash(), range(1000, 1016)).hex()[:8]
  '15528b72'
)";

}  // namespace

void bind_hash(nb::module_& m) {
  m.def(
      "sha256", [](const nb::bytes& data) { return to_bytes(sha256(view(data))); }, "data"_a,
      kSha256Doc);
  m.def(
      "none_hash", [](std::string_view seed) { return to_bytes(none_hash(seed).bytes); },
      "seed"_a = kDefaultHashSeed, kNoneHashDoc);
  m.def(
      "hash_page",
      [](const nb::bytes& parent, const TokenArray& tokens, const std::optional<nb::bytes>& extra) {
        return hash_tokens(parent, {tokens.data(), tokens.size()}, extra);
      },
      "parent"_a, "tokens"_a.noconvert(), "extra"_a = nb::none(), kHashPageDoc);
  m.def(
      "hash_page",
      [](const nb::bytes& parent, const std::vector<TokenId>& tokens,
         const std::optional<nb::bytes>& extra) { return hash_tokens(parent, tokens, extra); },
      "parent"_a, "tokens"_a, "extra"_a = nb::none());
}

}  // namespace pagedkv
