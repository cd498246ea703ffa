#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pagedkv/hash/extra_keys.h"
#include "pagedkv/hash/page_hash.h"
#include "pagedkv/hash/page_hash_chain.h"
#include "pagedkv/manager/retention.h"
#include "pagedkv/types.h"
#include "pagedkv/use_flag.h"

namespace pagedkv {

class CacheManager;

/// What the steps of a request ask of the rows of pages it holds. Its manager keeps it up to date.
struct StepBounds {
  std::int32_t num_allocated_tokens = 0;  ///< Tokens there is room for.
  std::int32_t num_quiet_tokens = 0;      ///< Up to so many, `allocate` leaves the rows alone.
  std::int32_t next_full_tokens = 0;      ///< So many fill the next page that can be cached.
  std::int32_t num_changes = 0;           ///< Times that the rows have changed.
};

/// What has happened to the tokens of a request besides that some were appended, since somebody
/// first asked.
struct RequestHistory {
  /// How many tokens each `truncate` left.
  std::vector<std::int32_t> cuts;
};

/// The tokens of one sequence, what besides them decides its content, and the digests of its full
/// pages.
///
/// Tokens are appended, and taken off again only before they are computed; extra keys never change.
/// Digests are made when a manager first needs them, and only for pages that became full since. A
/// request holds pages of one manager at a time, and gives them back when it is destroyed. Not
/// thread-safe.
///
/// Begins with what each step reads, in one cache line: most steps of a request that decodes read
/// no other.
class alignas(64) Request {
 public:
  /// Throws `std::invalid_argument` if a multimodal item or a prompt embedding lies behind the
  /// last token, and if `num_encoder_tokens < 0`.
  Request(std::string request_id, std::vector<TokenId> tokens, ExtraKeys extra_keys = {},
          std::int32_t num_encoder_tokens = 0);

  ~Request();

  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;

  const std::string& request_id() const { return request_id_; }
  std::span<const TokenId> tokens() const { return tokens_; }
  const ExtraKeys& extra_keys() const { return extra_keys_; }

  /// Prompt and output so far.
  std::int32_t num_tokens() const { return static_cast<std::int32_t>(tokens_.size()); }

  /// Tokens of the encoder's output, which layers of cross attention keep K/V of.
  std::int32_t num_encoder_tokens() const { return num_encoder_tokens_; }

  /// How the pages are to be kept when the request has gone; null: as those of any other.
  const Retention* retention() const { return retention_.get(); }

  /// Sets the retention; the tokens so far are the prompt. Pages that the request holds already
  /// stay on the term they are on.
  void retain(std::shared_ptr<const Retention> retention) {
    retain(std::move(retention), num_tokens());
  }

  /// As above, where the first `num_prompt_tokens` tokens are the prompt.
  void retain(std::shared_ptr<const Retention> retention, std::int32_t num_prompt_tokens) {
    retention_ = std::move(retention);
    num_prompt_tokens_ = num_prompt_tokens;
  }

  /// Sets the retention that `other` has.
  void retain_as(const Request& other) { retain(other.retention_, other.num_prompt_tokens_); }

  /// Tokens that the ranges of the retention are about; 0 without one.
  std::int32_t num_prompt_tokens() const { return num_prompt_tokens_; }

  /// The term of a page of tokens `[begin, end)`. Requires a retention.
  RetentionTerm retention_of(std::int64_t begin, std::int64_t end) const;

  /// Tokens whose K/V is in pages the request holds; 0 while it holds none.
  std::int32_t num_computed_tokens() const { return num_computed_tokens_; }

  /// True iff the request holds pages of a manager.
  bool is_allocated() const { return owner_ != nullptr; }

  void append(TokenId token) { tokens_.push_back(token); }
  void append(std::span<const TokenId> tokens) {
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  }

  /// Takes off all but the first `num_tokens` tokens: guesses of a draft model that were rejected.
  /// Pages that there was room for them in stay with the request.
  ///
  /// Throws `std::invalid_argument` if there are fewer tokens, if more are computed or in pages
  /// that others can find, or if more are covered by multimodal items or prompt embeddings.
  void truncate(std::int32_t num_tokens);

  /// Throws what `truncate` throws.
  void check_truncate(std::int32_t num_tokens) const;

  /// Digests of the full pages of `page_size` tokens. Valid until the next change.
  ///
  /// Throws as `check_hashable` does.
  std::span<const PageHash> page_hashes(std::int32_t page_size, const PageHasher& hasher);

  /// As `page_hashes` of each, which need not wait for each other. Throws as `page_hashes` does;
  /// then nothing is hashed. Requires that no request is given twice.
  static void hash_pages(std::span<Request* const> requests, std::int32_t page_size,
                         const PageHasher& hasher);

  /// Pages that `page_hashes` would hash now.
  std::int64_t num_pages_to_hash(std::int32_t page_size, const PageHasher& hasher) const;

  /// Throws `std::invalid_argument` if the request has extra keys and the algorithm takes none, or
  /// if its prompt embeddings were hashed for another page size.
  void check_hashable(std::int32_t page_size, const PageHasher& hasher) const;

  /// What a manager last hashed the request with.
  ///
  /// Throws `std::invalid_argument` before one has seen the request.
  const PageHasher& hasher() const;

  /// Digests of all full pages, in pages of the size last used by a manager.
  ///
  /// Throws `std::invalid_argument` before a manager has seen the request.
  std::span<const PageHash> page_hashes();

  /// Digest of full page `page`, in pages of the size last used by a manager.
  ///
  /// Throws `std::invalid_argument` before a manager has seen the request, `std::out_of_range`
  /// for a page that is not full.
  const PageHash& page_hash(std::int32_t page);

  /// For those who keep notes on requests: lives as long as the request does, and so tells it
  /// from another that gets its address. Made when it is first asked for.
  std::shared_ptr<const RequestHistory> history();

  /// For those who let go of a lock while they hash.
  UseFlag& use_flag() { return use_flag_; }

 private:
  friend class CacheManager;

  bool is_hashed_with(std::int32_t page_size, const PageHasher& hasher) const;
  const PageHashChain& chain(const char* operation) const;
  PageHashChain& chain_for(std::int32_t page_size, const PageHasher& hasher);

  // The cache line that each step reads.
  std::vector<TokenId> tokens_;
  // Where the owner keeps what the request holds. Both set, or neither.
  CacheManager* owner_ = nullptr;
  std::int32_t state_ = -1;
  std::int32_t num_computed_tokens_ = 0;
  std::int32_t num_shown_tokens_ = 0;  // in pages that others can find, by this request or before
  StepBounds bounds_;
  UseFlag use_flag_;

  std::string request_id_;
  ExtraKeys extra_keys_;
  std::int32_t num_encoder_tokens_;
  std::int32_t num_prompt_tokens_ = 0;  // what the retention's ranges are about
  std::shared_ptr<const Retention> retention_;
  std::optional<PageHashChain> chain_;  // empty until a manager gives the page size
  std::shared_ptr<RequestHistory> history_;
};

}  // namespace pagedkv
