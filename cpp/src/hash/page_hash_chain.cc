#include "pagedkv/hash/page_hash_chain.h"

#include <algorithm>

#include "pagedkv/error.h"

namespace pagedkv {

PageHashChain::PageHashChain(std::int32_t page_size, const PageHasher& hasher)
    : page_size_(static_cast<std::size_t>(page_size)), hasher_(hasher) {
  if (page_size < 1) {
    throw_value_error("PageHashChain", "page_size must be at least 1, got ", page_size);
  }
}

void PageHashChain::reserve(std::size_t num_pages) {
  if (num_pages > digests_.capacity()) {
    digests_.reserve(std::max(num_pages, 2 * digests_.capacity()));
  }
}

void PageHashChain::extend(std::span<const TokenId> tokens_so_far, const ExtraKeys& extra_keys) {
  const std::size_t num_full_pages = tokens_so_far.size() / page_size_;
  if (num_full_pages <= digests_.size()) return;
  reserve(num_full_pages);
  if (extra_keys.empty()) {
    const std::size_t num_before = digests_.size();
    const PageRun run = grow(tokens_so_far);
    try {
      return hash_runs({&run, 1}, hasher_.algorithm());
    } catch (...) {  // no memory
      truncate(num_before);
      throw;
    }
  }
  for (std::size_t page = digests_.size(); page < num_full_pages; ++page) {
    extra_keys.encode_page(page, page_size(), extra_);
    const auto tokens = tokens_so_far.subspan(page * page_size_, page_size_);
    digests_.push_back(hasher_.hash_page(last(), tokens, extra_));
  }
}

PageRun PageHashChain::grow(std::span<const TokenId> tokens_so_far) {
  const std::size_t num_before = digests_.size();
  const std::size_t num_pages = std::max(tokens_so_far.size() / page_size_, num_before);
  const PageHash parent = last();
  reserve(num_pages);
  digests_.resize(num_pages);
  return {parent,
          tokens_so_far.subspan(num_before * page_size_, (num_pages - num_before) * page_size_),
          std::span(digests_).subspan(num_before)};
}

void PageHashChain::append_page(std::span<const TokenId> tokens, std::span<const std::byte> extra) {
  if (tokens.size() != page_size_) {
    throw_value_error("PageHashChain.append_page", "got ", tokens.size(), " tokens, a page holds ",
                      page_size_);
  }
  digests_.push_back(hasher_.hash_page(last(), tokens, extra));
}

void PageHashChain::truncate(std::size_t num_pages) {
  if (num_pages < digests_.size()) digests_.resize(num_pages);
}

}  // namespace pagedkv
