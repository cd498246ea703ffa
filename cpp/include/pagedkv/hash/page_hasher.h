#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "pagedkv/hash/hash_algorithm.h"
#include "pagedkv/hash/page_hash.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// Seed of the digest that stands before the first page. vLLM's default for its SHA algorithms.
/// For XXH3 vLLM draws a random seed in each process; ours is this one, so that two runs agree.
inline constexpr std::string_view kDefaultHashSeed = "vllm-none-hash";

/// The parent of a first page. Caches with different seeds share nothing. `seed` must be UTF-8,
/// which is not checked.
PageHash none_hash(std::string_view seed = kDefaultHashSeed,
                   HashAlgorithm algorithm = HashAlgorithm::kSha256Cbor);

/// Digest of a full page that holds `tokens` and follows the page of digest `parent`.
///
/// `extra` is one value in canonical CBOR: what besides the tokens decides the content of the
/// page, as `ExtraKeys` gives it. Empty stands for "nothing". Allocates only for pages of more
/// than about 150 tokens. Thread-safe.
///
/// Throws `std::invalid_argument` for extra keys with an algorithm that takes none.
PageHash hash_page(const PageHash& parent, std::span<const TokenId> tokens,
                   std::span<const std::byte> extra = {},
                   HashAlgorithm algorithm = HashAlgorithm::kSha256Cbor);

/// Full pages without extra keys, of equal sizes, one after the other.
struct PageRun {
  PageHash parent;                  ///< Digest of the page before.
  std::span<const TokenId> tokens;  ///< Of all pages.
  std::span<PageHash> digests;      ///< One a page, to be filled.

  std::size_t page_size() const { return digests.empty() ? 0 : tokens.size() / digests.size(); }
};

/// Fills the digests of runs that do not depend on each other, as `hash_page` on each page does,
/// but faster: with `kPagedkv` the first half of a page does not wait for the page before; with
/// `kSha256Cbor` every page does, but two runs are hashed side by side.
///
/// Requires that `tokens.size()` of each run is a multiple of `digests.size()`.
void hash_runs(std::span<const PageRun> runs, HashAlgorithm algorithm = HashAlgorithm::kSha256Cbor);

/// An algorithm and a root: all that decides which digest a page of a given content has.
class PageHasher {
 public:
  explicit PageHasher(HashAlgorithm algorithm = HashAlgorithm::kSha256Cbor,
                      std::string_view seed = kDefaultHashSeed)
      : algorithm_(algorithm), root_(none_hash(seed, algorithm)) {}

  HashAlgorithm algorithm() const { return algorithm_; }

  /// The parent of a first page.
  const PageHash& root() const { return root_; }

  PageHash hash_page(const PageHash& parent, std::span<const TokenId> tokens,
                     std::span<const std::byte> extra = {}) const {
    return pagedkv::hash_page(parent, tokens, extra, algorithm_);
  }

  friend bool operator==(const PageHasher&, const PageHasher&) = default;

 private:
  HashAlgorithm algorithm_;
  PageHash root_;
};

}  // namespace pagedkv
