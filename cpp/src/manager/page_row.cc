#include "pagedkv/manager/page_row.h"

#include <algorithm>
#include <utility>

#include "pagedkv/error.h"

namespace pagedkv {
namespace {

std::size_t index(std::int32_t position) { return static_cast<std::size_t>(position); }

bool is_real(PageId page) { return page != kNullPage; }

}  // namespace

void PageRow::take(PagePool& pool, std::ptrdiff_t begin, std::ptrdiff_t end,
                   const RowClaim& claim) {
  if (!claim.allocate(pool, pages_, static_cast<std::size_t>(begin),
                      static_cast<std::size_t>(end))) {
    throw_broken("CacheManager", "the pool has fewer pages than free");
  }
}

void PageRow::adopt(std::vector<PageId>& pages, std::int32_t first_needed) {
  pages_.swap(pages);
  num_cached_ = size();
  num_skipped_ = std::min(first_needed, size());
  std::ranges::fill(std::span(pages_).first(index(num_skipped_)), kNullPage);
}

void PageRow::hold(PagePool& pool, const RowClaim& claim) const {
  for (std::size_t i = 0; i < pages_.size(); ++i) {
    if (pages_[i] != kNullPage) claim.hold(pool, pages_[i], i);
  }
}

PageId PageRow::num_pages_copied(const RowRange& rewritten) const {
  const std::int32_t end = std::min(rewritten.end, size());
  const std::int32_t begin = std::min(rewritten.begin, end);
  const auto copied = std::span(pages_).subspan(index(begin), index(end - begin));
  return static_cast<PageId>(std::ranges::count_if(copied, is_real));
}

void PageRow::fork(PagePool& pool, const PageRow& parent, const RowRange& rewritten,
                   const RowClaim& claim, PageCopies& copies) {
  const std::int32_t end = std::min(rewritten.end, parent.size());
  const std::int32_t begin = std::min(rewritten.begin, end);
  pages_.assign(parent.pages_.begin(), parent.pages_.begin() + begin);
  hold(pool, claim);
  for (std::int32_t i = begin; i < end; ++i) {
    const PageId source = parent.pages_[index(i)];
    pages_.push_back(kNullPage);
    if (!is_real(source)) continue;
    take(pool, i, i + 1, claim);
    copies.push_back({source, pages_.back()});
  }
  num_cached_ = std::min(parent.num_cached_, begin);
  num_skipped_ = std::min(parent.num_skipped_, size());
}

PageRow::Growth PageRow::plan(const GroupPolicy& policy, const RequestLength& length,
                              std::int32_t first_needed) const {
  Growth growth;
  growth.num_pages = std::max(policy.num_pages_for(length), size());
  growth.first_needed = std::min(first_needed, size());
  // Where each token has a slot, the row has no gaps.
  growth.first_filled =
      policy.has_slots()
          ? size()
          : std::max({policy.first_written_page(length), num_skipped_, growth.first_needed});
  return growth;
}

std::int32_t PageRow::num_pages_taken(const Growth& growth) const {
  const std::int32_t begin = std::min(growth.first_filled, size());
  const auto gaps = std::ranges::count(std::span(pages_).subspan(index(begin)), kNullPage);
  return static_cast<std::int32_t>(gaps) + growth.num_pages - std::max(growth.first_filled, size());
}

std::int32_t PageRow::num_pages_freed(const Growth& growth, const PagePool& pool,
                                      const PageRange& range) const {
  std::int32_t freed = 0;
  for (std::int32_t i = num_skipped_; i < growth.first_needed; ++i) {
    const PageId page = pages_[index(i)];
    freed += page != kNullPage && range.contains(page) && pool.ref_count(page) == 1;
  }
  return freed;
}

void PageRow::skip(PagePool& pool, std::int32_t first_needed) {
  for (std::int32_t i = std::min(first_needed, size()); i-- > num_skipped_;) {
    const PageId page = std::exchange(pages_[index(i)], kNullPage);
    if (page != kNullPage) pool.free(std::span(&page, 1));
  }
  num_skipped_ = std::max(num_skipped_, std::min(first_needed, size()));
}

void PageRow::grow(PagePool& pool, const Growth& growth, const RowClaim& claim) {
  pages_.resize(index(growth.num_pages), kNullPage);
  const auto end = pages_.end();
  for (auto gap = pages_.begin() + growth.first_filled; gap != end;) {
    gap = std::find(gap, end, kNullPage);
    const auto gap_end = std::find_if(gap, end, is_real);
    take(pool, gap - pages_.begin(), gap_end - pages_.begin(), claim);
    gap = gap_end;
  }
}

std::int32_t PageRow::cache(PagePool& pool, const GroupPolicy& policy, const GroupHashes& hashes,
                            std::int32_t num_tokens, std::int64_t step_end, bool deduplicate) {
  const std::int32_t num_full = std::min(num_tokens / policy.page_size(), size());
  constexpr std::int32_t kNumPrefetched = 32;
  const GroupId group = policy.group();
  std::int32_t num_replaced = 0;
  const std::int32_t begin = std::exchange(num_cached_, std::max(num_cached_, num_full));
  // A single page would wait all the same.
  for (std::int32_t i = begin + 1; i < std::min(num_full, begin + kNumPrefetched); ++i) {
    pool.prefetch(hashes[i], group);
  }
  for (std::int32_t i = begin; i < num_full; ++i) {
    if (i + kNumPrefetched < num_full) pool.prefetch(hashes[i + kNumPrefetched], group);
    PageId& page = pages_[index(i)];
    if (page == kNullPage || !policy.is_complete(i, step_end)) continue;
    if (pool.is_cached(page)) continue;  // by a request that it was forked from, or forked to
    const PageHash& hash = hashes[i];
    const PageId same =
        deduplicate ? pool.find(hash, group, pool.shards().shard_of(page)) : kNoPage;
    if (same == kNoPage) {
      pool.cache(page, hash, group);
      continue;
    }
    pool.hold(std::span(&same, 1), pool.term(page));
    pool.free(std::span(&page, 1));
    page = same;
    ++num_replaced;
  }
  return num_replaced;
}

void PageRow::clear() {
  pages_.clear();
  num_cached_ = num_skipped_ = 0;
}

void PageRow::check_invariants(const PagePool& pool, const GroupPolicy& policy,
                               const RequestLength& length, const std::string& request_id) const {
  const auto fail = [&](const auto&... parts) {
    throw_broken("CacheManager", "request '", request_id, "', group ", policy.group(), ": ",
                 parts...);
  };
  if (policy.has_slots() && size() < policy.num_pages_for(length)) fail("short page table");
  for (std::int32_t i = 0; i < size(); ++i) {
    const PageId page = pages_[index(i)];
    if (i < num_skipped_ && page != kNullPage) fail("page ", i, " is skipped and not null");
    if (page == kNullPage) {
      if (policy.has_slots() && i >= num_skipped_) fail("page ", i, " is null");
    } else if (i >= num_cached_ && pool.is_cached(page) && pool.ref_count(page) == 1) {
      fail("page ", i, " is cached too soon");
    } else if (i < num_cached_ && policy.has_slots() && !pool.is_cached(page)) {
      fail("page ", i, " is not cached");
    }
  }
}

}  // namespace pagedkv
