#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pagedkv/hash/page_hash.h"
#include "pagedkv/hash/page_hash_chain.h"
#include "pagedkv/types.h"

namespace pagedkv {

class CacheManager;

/// The tokens of one sequence, and the digests of its full pages.
///
/// Tokens are only ever appended. Digests are made when a manager first needs them, and only for
/// pages that became full since. A request holds pages of one manager at a time, and gives them
/// back when it is destroyed. Not thread-safe.
class Request {
 public:
  Request(std::string request_id, std::vector<TokenId> tokens)
      : request_id_(std::move(request_id)), tokens_(std::move(tokens)) {}

  ~Request();

  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;

  const std::string& request_id() const { return request_id_; }
  std::span<const TokenId> tokens() const { return tokens_; }

  /// Prompt and output so far.
  std::int32_t num_tokens() const { return static_cast<std::int32_t>(tokens_.size()); }

  /// Tokens whose K/V is in pages the request holds; 0 while it holds none.
  std::int32_t num_computed_tokens() const { return num_computed_tokens_; }

  /// True iff the request holds pages of a manager.
  bool is_allocated() const { return owner_ != nullptr; }

  void append(TokenId token) { tokens_.push_back(token); }
  void append(std::span<const TokenId> tokens) {
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  }

  /// Digests of the full pages of `page_size` tokens, chained from `root`.
  std::span<const PageHash> page_hashes(std::int32_t page_size, const PageHash& root);

  /// Digest of full page `page`, in pages of the size last used by a manager.
  ///
  /// Throws `std::invalid_argument` before a manager has seen the request, `std::out_of_range`
  /// for a page that is not full.
  const PageHash& page_hash(std::int32_t page);

 private:
  friend class CacheManager;

  std::string request_id_;
  std::vector<TokenId> tokens_;
  std::optional<PageHashChain> chain_;  // empty until a manager gives the page size
  std::int32_t num_computed_tokens_ = 0;

  // Where the owner keeps what the request holds. Both set, or neither.
  CacheManager* owner_ = nullptr;
  std::int32_t state_ = -1;
};

}  // namespace pagedkv
