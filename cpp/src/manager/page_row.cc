#include "pagedkv/manager/page_row.h"

#include <algorithm>
#include <utility>

#include "pagedkv/error.h"

namespace pagedkv {
namespace {

std::size_t index(std::int32_t position) { return static_cast<std::size_t>(position); }

}  // namespace

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
    const auto gap_end = std::find_if(gap, end, [](PageId page) { return page != kNullPage; });
    if (!claim.allocate(pool, pages_, static_cast<std::size_t>(gap - pages_.begin()),
                        static_cast<std::size_t>(gap_end - pages_.begin()))) {
      throw_broken("CacheManager", "the pool has fewer pages than free");
    }
    gap = gap_end;
  }
}

void PageRow::cache(PagePool& pool, const GroupPolicy& policy, const GroupHashes& hashes,
                    std::int32_t num_tokens) {
  const std::int32_t num_full = std::min(num_tokens / policy.page_size(), size());
  for (; num_cached_ < num_full; ++num_cached_) {
    const PageId page = pages_[index(num_cached_)];
    if (page == kNullPage || !policy.is_complete(num_cached_, num_tokens)) continue;
    pool.cache(page, hashes[num_cached_], policy.group());
  }
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
    } else if (i >= num_cached_ && pool.is_cached(page)) {
      fail("page ", i, " is cached too soon");
    } else if (i < num_cached_ && policy.has_slots() && !pool.is_cached(page)) {
      fail("page ", i, " is not cached");
    }
  }
}

}  // namespace pagedkv
