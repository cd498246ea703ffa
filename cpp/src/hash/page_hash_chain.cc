#include "pagedkv/hash/page_hash_chain.h"

#include <algorithm>

#include "pagedkv/error.h"

namespace pagedkv {

PageHashChain::PageHashChain(std::int32_t page_size, const PageHash& root, HashAlgorithm algorithm)
    : page_size_(static_cast<std::size_t>(page_size)), root_(root), algorithm_(algorithm) {
  if (page_size < 1) {
    throw_value_error("PageHashChain", "page_size must be at least 1, got ", page_size);
  }
}

void PageHashChain::extend(std::span<const TokenId> tokens_so_far) {
  const std::size_t num_full_pages = tokens_so_far.size() / page_size_;
  if (num_full_pages > digests_.capacity()) {
    digests_.reserve(std::max(num_full_pages, 2 * digests_.capacity()));
  }
  for (std::size_t page = digests_.size(); page < num_full_pages; ++page) {
    const auto tokens = tokens_so_far.subspan(page * page_size_, page_size_);
    digests_.push_back(hash_page(last(), tokens, {}, algorithm_));
  }
}

void PageHashChain::append_page(std::span<const TokenId> tokens, std::span<const std::byte> extra) {
  if (tokens.size() != page_size_) {
    throw_value_error("PageHashChain.append_page", "got ", tokens.size(), " tokens, a page holds ",
                      page_size_);
  }
  digests_.push_back(hash_page(last(), tokens, extra, algorithm_));
}

}  // namespace pagedkv
