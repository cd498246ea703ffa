#include "pagedkv/manager/request.h"

#include "pagedkv/error.h"
#include "pagedkv/manager/cache_manager.h"

namespace pagedkv {

Request::~Request() {
  if (owner_ != nullptr) owner_->free(*this);
}

std::span<const PageHash> Request::page_hashes(std::int32_t page_size, const PageHash& root) {
  if (!chain_ || chain_->page_size() != page_size || chain_->root() != root) {
    chain_.emplace(page_size, root);
  }
  chain_->extend(tokens_);
  return chain_->digests();
}

const PageHash& Request::page_hash(std::int32_t page) {
  if (!chain_) {
    throw_value_error("Request.page_hash", "no manager has seen request '", request_id_, "' yet");
  }
  chain_->extend(tokens_);
  const auto hashes = chain_->digests();
  if (page < 0 || static_cast<std::size_t>(page) >= hashes.size()) {
    throw_index_error("Request.page_hash", "page must be in [0, ", hashes.size(),
                      ") (only full pages have a digest), got ", page);
  }
  return hashes[static_cast<std::size_t>(page)];
}

}  // namespace pagedkv
