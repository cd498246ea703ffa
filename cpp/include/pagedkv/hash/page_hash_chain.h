#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pagedkv/hash/page_hash.h"
#include "pagedkv/hash/page_hasher.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// Digests of the full pages of one sequence of tokens, which grows.
///
/// Each page is hashed once, when its last token arrives. Not thread-safe.
///
/// Invariant: `digests()[i] == hash_page(i == 0 ? root : digests()[i - 1], tokens of page i)`.
class PageHashChain {
 public:
  /// `root` is the parent of the first page. Throws `std::invalid_argument` if `page_size < 1`.
  PageHashChain(std::int32_t page_size, const PageHash& root,
                HashAlgorithm algorithm = HashAlgorithm::kSha256Cbor);

  /// Hashes the pages that became full since the last call, given the whole sequence so far.
  ///
  /// Tokens of pages hashed before are not read again: they must not have changed. A sequence
  /// that is shorter than before changes nothing.
  void extend(std::span<const TokenId> tokens_so_far);

  /// Hashes one more page, with extra keys as in `hash_page`. Throws `std::invalid_argument`
  /// unless `tokens.size() == page_size()`.
  void append_page(std::span<const TokenId> tokens, std::span<const std::byte> extra = {});

  /// The parent of the first page.
  const PageHash& root() const { return root_; }

  std::int32_t page_size() const { return static_cast<std::int32_t>(page_size_); }

  /// One digest a full page, in order. Valid until the next change of the chain.
  std::span<const PageHash> digests() const { return digests_; }

 private:
  const PageHash& last() const { return digests_.empty() ? root_ : digests_.back(); }

  std::size_t page_size_;
  PageHash root_;
  HashAlgorithm algorithm_;
  std::vector<PageHash> digests_;
};

}  // namespace pagedkv
