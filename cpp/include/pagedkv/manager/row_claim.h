#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "pagedkv/pool/page_pool.h"
#include "pagedkv/types.h"

namespace pagedkv {

class Request;

/// How the pages of a row are taken from the pool: where from, on what terms, next to which.
struct RowClaim {
  ShardId shard = kAnyShard;
  bool contiguous = false;           ///< See `PageClaim`.
  const Request* request = nullptr;  ///< Whose retention counts; null: the default term for all.
  std::int32_t page_size = 1;        ///< Page `i` of the row is for tokens from `i * page_size` on.

  /// Fills `row[begin:end]` with pages of the pool. Returns false if there are too few; then some
  /// may have been taken.
  bool allocate(PagePool& pool, std::span<PageId> row, std::size_t begin, std::size_t end) const;

  /// Holds page `i` of a row, a real one, once more.
  void hold(PagePool& pool, PageId page, std::size_t i) const;

  /// The term of page `i`.
  RetentionTerm term_of(std::size_t i) const;
};

}  // namespace pagedkv
