#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pagedkv/hash/extra_keys.h"
#include "pagedkv/hash/page_hash.h"
#include "pagedkv/hash/page_hasher.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// Digests of the full pages of one sequence of tokens, which grows.
///
/// Each page is hashed once, when its last token arrives. Not thread-safe.
///
/// Invariant: `digests()[i]` is the hasher's digest of page `i`, its tokens and its extra keys,
/// with the parent `i == 0 ? hasher().root() : digests()[i - 1]`.
class PageHashChain {
 public:
  /// Throws `std::invalid_argument` if `page_size < 1`.
  explicit PageHashChain(std::int32_t page_size, const PageHasher& hasher = PageHasher());

  /// Hashes the pages that became full since the last call, given the whole sequence so far.
  ///
  /// Tokens of pages hashed before are not read again: they and the extra keys must not have
  /// changed. A sequence that is shorter than before changes nothing.
  ///
  /// Throws `std::invalid_argument` for extra keys that the algorithm does not take, or that are
  /// for another page size; the pages before the first such page are hashed.
  void extend(std::span<const TokenId> tokens_so_far, const ExtraKeys& extra_keys = {});

  /// Makes room for `num_pages` digests in all, so that `grow` to as many does not fail.
  void reserve(std::size_t num_pages);

  /// The first half of `extend` without extra keys, for those who hash many chains at once: the
  /// pages that became full, whose digests the caller has to fill before anything else.
  PageRun grow(std::span<const TokenId> tokens_so_far);

  /// Hashes one more page, with extra keys as in `hash_page`. Throws `std::invalid_argument`
  /// unless `tokens.size() == page_size()`.
  void append_page(std::span<const TokenId> tokens, std::span<const std::byte> extra = {});

  /// Forgets all but the first `num_pages` digests: their tokens are to change, as when guesses of
  /// a draft model are taken back. Does nothing if there are no more.
  void truncate(std::size_t num_pages);

  const PageHasher& hasher() const { return hasher_; }

  std::int32_t page_size() const { return static_cast<std::int32_t>(page_size_); }

  /// One digest a full page, in order. Valid until the next change of the chain.
  std::span<const PageHash> digests() const { return digests_; }

 private:
  const PageHash& last() const { return digests_.empty() ? hasher_.root() : digests_.back(); }
  std::size_t page_size_;
  PageHasher hasher_;
  std::vector<PageHash> digests_;
  std::vector<std::byte> extra_;  // scratch of extend
};

}  // namespace pagedkv
