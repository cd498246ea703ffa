#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "arrays.h"
#include "bindings.h"
#include "digests.h"
#include "gil.h"
#include "pagedkv/hash/page_hasher.h"
#include "pagedkv/hash/sha256.h"
#include "pagedkv/hash/xxh3.h"
#include "pagedkv/manager/request.h"

namespace pagedkv {
namespace {

using Seed = std::optional<std::string_view>;

std::span<const std::byte> view(const nb::bytes& bytes) {
  return {static_cast<const std::byte*>(bytes.data()), bytes.size()};
}

nb::bytes hash_tokens(const nb::bytes& parent, nb::handle tokens,
                      const std::optional<nb::bytes>& extra, std::string_view algorithm_name) {
  const HashAlgorithm algorithm = hash_algorithm_named(algorithm_name);
  return bytes_of(hash_page(page_hash_of(parent, digest_bytes(algorithm), "hash_page", "parent"),
                            int32_values(tokens, "hash_page", "tokens"),
                            extra ? view(*extra) : std::span<const std::byte>(), algorithm),
                  algorithm);
}

DigestArray hash_request(const PageHasher& hasher, Request& request, std::int32_t page_size) {
  if (page_size < 1) {
    throw_value_error("PageHasher.page_hashes", "page_size must be at least 1, got ", page_size);
  }
  const ExclusiveUse use(request.use_flag(), "PageHasher.page_hashes", "request");
  const auto hashes = without_gil_if_long(request.num_pages_to_hash(page_size, hasher),
                                          [&] { return request.page_hashes(page_size, hasher); });
  return array_of(hashes, hasher.algorithm());
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

constexpr const char* kXxh3Doc = R"(Computes the XXH3 digest of 128 bits of ``data``.

Args:
  data: The message, of any length.

Returns:
  16 bytes, as ``xxhash.xxh3_128_digest(data)`` gives them.

Example:
  >>> xxh3_128(b"abc").hex()[:8]
  '06b05ab6'
)";

constexpr const char* kNoneHashDoc = R"(Computes the parent digest of a first page.

Args:
  seed: Caches with different seeds share nothing. The default is vLLM's.
  algorithm: One of ``hash_algorithms()``.

Returns:
  The algorithm's digest of ``seed``: 32 bytes, or 16.

Raises:
  ValueError: If ``algorithm`` is unknown.

Example:
  >>> none_hash().hex()[:8]
  '9bd96a48'
)";

constexpr const char* kHashPageDoc = R"(Computes the digest of a full page.

Args:
  parent: Digest of the page before; ``none_hash()`` for the first page.
  tokens: int32, shape ``[page_size]``, or a sequence of ints in the range of int32.
  extra: Canonical CBOR of the page's extra keys. ``None`` or empty if it has none.
  algorithm: One of ``hash_algorithms()``.

Returns:
  32 bytes, or 16: the digest of ``(parent, tokens, extra keys or None)``.

Raises:
  ValueError: If ``algorithm`` is unknown, or takes no extra keys and gets some, if ``parent`` is
    not a digest of it, or if a token does not fit in int32.
  TypeError: If ``tokens`` are not integers in one dimension.

Example:
  >>> hash_page(none_hash(), range(1000, 1016)).hex()[:8]
  '15528b72'
)";

constexpr const char* kPageHasherDoc = R"(How a cache names the content of its pages.

All who share a cache must agree on it. Algorithms: ``sha256_cbor``, bit-identical to vLLM's;
``sha256``, vLLM's too, only without extra keys; ``xxh3_128_cbor`` and ``xxh3_128``, vLLM's
``xxhash_cbor`` and ``xxhash``, faster, for tenants who trust each other; ``pagedkv``, our own, the
fastest of the strong ones; ``pagedkv_xxh3``, the fastest, for tenants who trust each other.
)";

constexpr const char* kPageHashesDoc =
    R"(Hashes the full pages of ``request``: for routers and shared stores.

Incremental: pages hashed before with the same hasher and page size are not hashed again.

Args:
  request: Its tokens and extra keys decide the digests.
  page_size: Tokens a page holds.

Returns:
  A fresh uint8 array, shape ``[num_tokens // page_size, digest_bytes]``.

Raises:
  ValueError: If ``page_size`` is below 1, or for extra keys that the algorithm does not take.
  RuntimeError: If another thread hashes ``request``.

Example:
  >>> digests = PageHasher().page_hashes(Request("a", range(1000, 1033)), page_size=16)
  >>> digests.shape, digests[0].tobytes().hex()[:8]
  ((2, 32), '15528b72')
)";

PageHasher make_hasher(std::string_view algorithm, Seed seed) {
  return PageHasher(hash_algorithm_named(algorithm), seed.value_or(kDefaultHashSeed));
}

void bind_page_hasher(nb::module_& m) {
  nb::class_<PageHasher>(m, "PageHasher", kPageHasherDoc)
      .def(
          "__init__",
          [](PageHasher* self, std::string_view algorithm, Seed seed) {
            new (self) PageHasher(make_hasher(algorithm, seed));
          },
          "algorithm"_a = "sha256_cbor", "seed"_a = nb::none(), R"(
Args:
  algorithm: One of ``hash_algorithms()``.
  seed: Caches with different seeds share nothing. vLLM's default if None.

Raises:
  ValueError: If ``algorithm`` is unknown.
)")
      .def_prop_ro("algorithm", [](const PageHasher& h) { return name(h.algorithm()); })
      .def_prop_ro(
          "digest_bytes", [](const PageHasher& h) { return digest_bytes(h.algorithm()); },
          "Bytes of a digest: 32 or 16.")
      .def_prop_ro(
          "root", [](const PageHasher& h) { return bytes_of(h.root(), h.algorithm()); },
          "The parent of a first page.")
      .def("page_hashes", &hash_request, "request"_a, "page_size"_a, kPageHashesDoc,
           nb::rv_policy::move)
      .def(
          "__eq__", [](const PageHasher& a, const PageHasher& b) { return a == b; },
          nb::is_operator(), nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__hash__",
           [](const PageHasher& h) { return nb::hash(bytes_of(h.root(), h.algorithm())); })
      .def("__repr__", [](const PageHasher& h) {
        return nb::str("PageHasher(algorithm={!r}, root={})")
            .format(name(h.algorithm()), bytes_of(h.root(), h.algorithm()).attr("hex")());
      });
}

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
      "xxh3_128",
      [](const nb::bytes& data) {
        const Xxh3Digest digest = xxh3_128(view(data));
        return nb::bytes(digest.data(), digest.size());
      },
      "data"_a, kXxh3Doc);
  m.def(
      "hash_algorithms",
      [] {
        std::vector<std::string> names;
        for (const HashAlgorithm each : all_hash_algorithms()) names.emplace_back(name(each));
        return names;
      },
      "Names of the hash algorithms, the default first.");
  m.def(
      "none_hash",
      [](std::string_view seed, std::string_view algorithm) {
        const PageHasher hasher = make_hasher(algorithm, seed);
        return bytes_of(hasher.root(), hasher.algorithm());
      },
      "seed"_a = kDefaultHashSeed, nb::kw_only(), "algorithm"_a = "sha256_cbor", kNoneHashDoc);
  m.def("hash_page", &hash_tokens, "parent"_a, "tokens"_a, "extra"_a = nb::none(), nb::kw_only(),
        "algorithm"_a = "sha256_cbor", kHashPageDoc);
  bind_page_hasher(m);
}

}  // namespace pagedkv
