#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "pagedkv/hash/page_hash.h"

namespace pagedkv {

/// Digests of a request's pages as a group with larger pages sees them.
///
/// Requests are hashed in pages that divide the pages of every group. A digest stands for all
/// tokens before it as well, so the last digest inside a larger page names all of that page.
class GroupHashes {
 public:
  /// `ratio` is the group's page size over that of `hashes`, at least 1.
  GroupHashes(std::span<const PageHash> hashes, std::int32_t ratio)
      : hashes_(hashes), ratio_(static_cast<std::size_t>(ratio)) {}

  /// Full pages of the group.
  std::int32_t size() const { return static_cast<std::int32_t>(hashes_.size() / ratio_); }

  /// Digest of the group's page `page`. Requires `0 <= page < size()`.
  const PageHash& operator[](std::int32_t page) const {
    return hashes_[(static_cast<std::size_t>(page) + 1) * ratio_ - 1];
  }

 private:
  std::span<const PageHash> hashes_;
  std::size_t ratio_;
};

}  // namespace pagedkv
