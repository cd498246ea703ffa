#include "pagedkv/manager/request.h"

#include <algorithm>
#include <limits>

#include "pagedkv/error.h"
#include "pagedkv/manager/cache_manager.h"

namespace pagedkv {

Request::Request(std::string request_id, std::vector<TokenId> tokens, ExtraKeys extra_keys,
                 std::int32_t num_encoder_tokens)
    : tokens_(std::move(tokens)),
      request_id_(std::move(request_id)),
      extra_keys_(std::move(extra_keys)),
      num_encoder_tokens_(num_encoder_tokens) {
  if (num_encoder_tokens < 0) {
    throw_value_error("Request", "num_encoder_tokens must be >= 0, got ", num_encoder_tokens);
  }
  for (const MultimodalItem& item : extra_keys_.mm_items()) {
    if (item.length > num_tokens() - item.offset) {
      throw_value_error("Request", "multimodal item '", item.identifier, "' covers tokens ",
                        item.offset, " to ", item.offset + item.length, ", request '", request_id_,
                        "' has ", num_tokens());
    }
  }
  const auto& embeds = extra_keys_.prompt_embeds();
  if (embeds && embeds->num_rows() > tokens_.size()) {
    throw_value_error("Request", "there are ", embeds->num_rows(), " prompt embeddings, request '",
                      request_id_, "' has ", num_tokens(), " tokens");
  }
}

Request::~Request() {
  if (owner_ != nullptr) owner_->free(*this);
}

void Request::check_truncate(std::int32_t num_tokens) const {
  constexpr auto kOperation = "Request.truncate";
  const auto fail = [&](const auto&... parts) {
    throw_value_error(kOperation, "request '", request_id_, "' ", parts..., ", cannot keep ",
                      num_tokens);
  };
  if (num_tokens > this->num_tokens()) fail("has ", this->num_tokens(), " tokens");
  const std::int32_t num_fixed = std::max(num_computed_tokens_, num_shown_tokens_);
  if (num_tokens < num_fixed) fail("has ", num_fixed, " computed tokens");
  for (const MultimodalItem& item : extra_keys_.mm_items()) {
    if (num_tokens - item.offset < item.length) {
      fail("has multimodal item '", item.identifier, "' up to token ", item.offset + item.length);
    }
  }
  const auto& embeds = extra_keys_.prompt_embeds();
  if (num_tokens < 0 || (embeds && embeds->num_rows() > static_cast<std::size_t>(num_tokens))) {
    fail("has ", embeds ? embeds->num_rows() : 0, " prompt embeddings");
  }
}

void Request::truncate(std::int32_t num_tokens) {
  check_truncate(num_tokens);
  if (history_) history_->cuts.push_back(num_tokens);
  tokens_.resize(static_cast<std::size_t>(num_tokens));
  if (chain_) chain_->truncate(static_cast<std::size_t>(num_tokens / chain_->page_size()));
}

std::shared_ptr<const RequestHistory> Request::history() {
  if (!history_) history_ = std::make_shared<RequestHistory>();
  return history_;
}

RetentionTerm Request::retention_of(std::int64_t begin, std::int64_t end) const {
  constexpr std::int64_t kMax = std::numeric_limits<std::int32_t>::max();
  return retention_->term_of(static_cast<std::int32_t>(std::min(begin, kMax - 1)),
                             static_cast<std::int32_t>(std::min(end, kMax)), num_prompt_tokens_);
}

bool Request::is_hashed_with(std::int32_t page_size, const PageHasher& hasher) const {
  return chain_ && chain_->page_size() == page_size && chain_->hasher() == hasher;
}

PageHashChain& Request::chain_for(std::int32_t page_size, const PageHasher& hasher) {
  if (!is_hashed_with(page_size, hasher)) chain_.emplace(page_size, hasher);
  return *chain_;
}

void Request::check_hashable(std::int32_t page_size, const PageHasher& hasher) const {
  if (extra_keys_.empty()) return;
  if (!takes_extra_keys(hasher.algorithm())) {
    throw_value_error("Request", "request '", request_id_, "' has extra keys, hash algorithm ",
                      name(hasher.algorithm()), " takes none; use ", name(hasher.algorithm()),
                      "_cbor");
  }
  const auto& embeds = extra_keys_.prompt_embeds();
  if (embeds && embeds->page_size() != page_size) {
    throw_value_error("Request", "prompt embeddings of request '", request_id_,
                      "' were hashed for pages of ", embeds->page_size(), " tokens, pages have ",
                      page_size);
  }
}

std::span<const PageHash> Request::page_hashes(std::int32_t page_size, const PageHasher& hasher) {
  check_hashable(page_size, hasher);
  PageHashChain& chain = chain_for(page_size, hasher);
  chain.extend(tokens_, extra_keys_);
  return chain.digests();
}

void Request::hash_pages(std::span<Request* const> requests, std::int32_t page_size,
                         const PageHasher& hasher) {
  for (const Request* request : requests) request->check_hashable(page_size, hasher);
  std::vector<PageRun> runs;
  runs.reserve(requests.size());
  for (Request* request : requests) {
    PageHashChain& chain = request->chain_for(page_size, hasher);
    if (request->extra_keys_.empty()) {
      chain.reserve(request->tokens_.size() / static_cast<std::size_t>(page_size));
    } else {
      chain.extend(request->tokens_, request->extra_keys_);
    }
  }
  std::vector<std::pair<PageHashChain*, std::size_t>> grown;
  grown.reserve(requests.size());
  for (Request* request : requests) {
    if (!request->extra_keys_.empty()) continue;
    grown.emplace_back(&*request->chain_, request->chain_->digests().size());
    runs.push_back(request->chain_->grow(request->tokens_));
  }
  try {
    hash_runs(runs, hasher.algorithm());
  } catch (...) {  // no memory: no chain is left without its digests
    for (const auto& [chain, num_pages] : grown) chain->truncate(num_pages);
    throw;
  }
}

std::int64_t Request::num_pages_to_hash(std::int32_t page_size, const PageHasher& hasher) const {
  const auto num_hashed = is_hashed_with(page_size, hasher) ? chain_->digests().size() : 0;
  return num_tokens() / page_size - static_cast<std::int64_t>(num_hashed);
}

const PageHashChain& Request::chain(const char* operation) const {
  if (chain_) return *chain_;
  throw_value_error(operation, "no manager has seen request '", request_id_, "' yet");
}

const PageHasher& Request::hasher() const { return chain("Request.hasher").hasher(); }

std::span<const PageHash> Request::page_hashes() {
  const PageHashChain& seen = chain("Request.page_hashes");
  return page_hashes(seen.page_size(), PageHasher(seen.hasher()));
}

const PageHash& Request::page_hash(std::int32_t page) {
  chain("Request.page_hash");
  const auto hashes = page_hashes();
  if (page < 0 || static_cast<std::size_t>(page) >= hashes.size()) {
    throw_index_error("Request.page_hash", "page must be in [0, ", hashes.size(),
                      ") (only full pages have a digest), got ", page);
  }
  return hashes[static_cast<std::size_t>(page)];
}

}  // namespace pagedkv
