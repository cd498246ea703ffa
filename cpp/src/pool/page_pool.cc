#include "pagedkv/pool/page_pool.h"

#include <algorithm>
#include <memory>

#include "pagedkv/error.h"

namespace pagedkv {
namespace {

constexpr std::size_t kNumPrefetched = 32;
constexpr std::size_t kNumAhead = 16;

std::size_t checked_num_pages(PageId num_pages) {
  if (num_pages < 1) {
    throw_value_error("PagePool", "num_pages must be >= 1 (page 0 is the null page), got ",
                      num_pages);
  }
  return static_cast<std::size_t>(num_pages);
}

}  // namespace

PagePool::PagePool(PageId num_pages, FreeOrder free_order)
    : pages_(checked_num_pages(num_pages)), free_pages_(pages_), index_(pages_) {
  free_pages_.set_uncached_first(free_order == FreeOrder::kUncachedFirst);
  std::construct_at(&pages_[kNullPage]);
  free_pages_.add_unused({kNullPage + 1, num_pages});
}

void PagePool::refuse_page(const char* operation, PageId page) const {
  throw_index_error(operation, "page must be in [1, ", num_pages(), "), got ", page);
}

std::int32_t PagePool::ref_count(PageId page) const {
  if (page != kNullPage) check_page("PagePool.ref_count", page);
  return at(page).ref_count;
}

const PageHash& PagePool::digest(PageId page) const {
  constexpr auto kOperation = "PagePool.digest";
  if (page != kNullPage) check_page(kOperation, page);
  if (!at(page).is_cached()) throw_value_error(kOperation, "page ", page, " is not cached");
  return at(page).hash;
}

GroupId PagePool::group(PageId page) const {
  if (page != kNullPage) check_page("PagePool.group", page);
  return at(page).group();
}

void PagePool::check_shard(const char* operation, ShardId shard) const {
  if (shard == kAnyShard || (shard >= 0 && shard < shards().size())) return;
  throw_index_error(operation, "shard must be in [0, ", shards().size(), "), got ", shard);
}

PageId PagePool::num_free_pages(ShardId shard) const {
  check_shard("PagePool.num_free_pages", shard);
  return free_pages_.size(shard);
}

void PagePool::set_num_shards(std::int32_t num_shards) {
  if (num_shards == shards().size()) return;
  free_pages_.set_shards(PageShards(num_pages(), num_shards));
  if (watch_ != nullptr) tell_dealt_out();
}

void PagePool::hand_out(PageId page) {
  if (watch_ != nullptr) [[unlikely]]
    tell_handed_out(page);
  at(page).ref_count = 1;
  ++counts_.num_allocated;
  if (at(page).is_cached()) {
    index_.remove(page);
    ++counts_.num_evicted;
  }
}

bool PagePool::allocate(std::span<PageId> out, ShardId shard) {
  if (free_pages_.lanes() != nullptr) [[unlikely]]
    return allocate(out, PageClaim{.shard = shard});
  check_shard("PagePool.allocate", shard);
  if (out.size() > static_cast<std::size_t>(free_pages_.size(shard))) return false;
  // A page is handed out some pages after it was taken, and what its eviction needs has come from
  // memory by then.
  const std::size_t num_pages = out.size();
  std::size_t num_done = 0;
  for (std::size_t i = 0; i < num_pages; ++i) {
    const PageId page = out[i] = free_pages_.pop_front(shard);
    const Page& record = at(page);
    if (record.is_cached()) index_.prefetch(record.hash, record.group());
    if (i - num_done == kNumAhead) hand_out(out[num_done++]);
  }
  while (num_done < num_pages) hand_out(out[num_done++]);
  note_peak();
  return true;
}

void PagePool::hold(std::span<const PageId> pages) {
  if (watch_ != nullptr) [[unlikely]]
    tell_held(pages);
  for (PageId page : pages) check_page("PagePool.hold", page);
  for (PageId page : pages) {
    if (at(page).ref_count++ > 0) continue;
    free_pages_.remove(page);
    ++counts_.num_reused;
  }
  note_peak();
}

void PagePool::free(std::span<const PageId> pages) {
  // Counts first and links second: a page that is not there, or given more often than it is held,
  // is noticed while everything can still be undone.
  for (std::size_t i = 0; i < pages.size(); ++i) {
    if (i + kNumPrefetched < pages.size()) prefetch_page(pages[i + kNumPrefetched]);
    if (is_page(pages[i]) && at(pages[i]).ref_count > 0) [[likely]] {
      --at(pages[i]).ref_count;
      continue;
    }
    for (const PageId page : pages.first(i)) ++at(page).ref_count;
    refuse_free(pages[i]);
  }
  const auto is_to_go = [this](PageId page) {
    return at(page).ref_count == 0 && !free_pages_.contains(page);
  };
  if (free_pages_.uncached_first()) {
    for (std::size_t i = pages.size(); i-- > 0;) {
      if (!is_to_go(pages[i]) || at(pages[i]).is_cached()) continue;
      free_pages_.push_front(pages[i]);
      ++counts_.num_freed;
    }
  }
  for (PageId page : pages) {
    if (!is_to_go(page)) continue;
    free_pages_.push_back(page);
    ++counts_.num_freed;
  }
}

void PagePool::refuse_free(PageId page) const {
  constexpr auto kOperation = "PagePool.free";
  check_page(kOperation, page);
  throw_value_error(kOperation, "page ", page, " is not allocated",
                    at(page).ref_count > 0 ? " that many times" : "");
}

void PagePool::refuse_cache(PageId page, GroupId group) const {
  constexpr auto kOperation = "PagePool.cache";
  check_page(kOperation, page);
  if (at(page).ref_count == 0) throw_value_error(kOperation, "page ", page, " is not allocated");
  if (at(page).is_cached()) throw_value_error(kOperation, "page ", page, " is cached already");
  throw_value_error(kOperation, "group must be in [0, ", Page::kMaxGroups, "), got ", group);
}

bool PagePool::reset_prefix_cache() {
  if (num_free_pages() != num_pages() - 1) return false;
  free_pages_.drop_content();
  index_.clear();
  if (watch_ != nullptr) tell_cleared();
  return true;
}

std::vector<PageContent> PagePool::contents() const {
  std::vector<PageContent> contents;
  for (const PageId page : index_.in_order()) {
    contents.push_back({page, at(page).group(), at(page).hash});
  }
  return contents;
}

void PagePool::restore(std::span<const PageId> order, std::span<const PageContent> contents) {
  constexpr auto kOperation = "PagePool.restore";
  if (num_held_pages() > 0 || num_cached_pages() > 0) {
    throw_value_error(kOperation, "the pool must be empty, ", num_held_pages(),
                      " pages are held and ", num_cached_pages(), " cached");
  }
  std::vector<bool> is_known(pages_.size(), false);
  const auto note = [&](PageId page) {
    if (page <= kNullPage || page >= num_pages()) {
      throw_value_error(kOperation, "page must be in [1, ", num_pages(), "), got ", page);
    }
    if (is_known[static_cast<std::size_t>(page)]) {
      throw_value_error(kOperation, "page ", page, " is there twice");
    }
    is_known[static_cast<std::size_t>(page)] = true;
  };
  for (const PageId page : order) note(page);
  if (order.size() != pages_.size() - 1) {
    throw_value_error(kOperation, "the order has ", order.size(), " of ", num_pages() - 1,
                      " pages");
  }
  is_known.assign(pages_.size(), false);
  for (const PageContent& content : contents) {
    note(content.page);
    if (!is_group(content.group)) {
      throw_value_error(kOperation, "group must be in [0, ", Page::kMaxGroups, "), got ",
                        content.group);
    }
  }
  for (const PageId page : order) free_pages_.remove(page);
  for (const PageContent& content : contents) {
    index_.insert(content.page, content.hash, content.group);
  }
  for (const PageId page : order) free_pages_.push_back(page);
  if (watch_ != nullptr) tell_restored();
}

void PagePool::check_invariants() const {
  free_pages_.check_invariants();
  index_.check_invariants();
  if (counts_.num_allocated + counts_.num_reused - counts_.num_freed != num_held_pages()) {
    throw_broken("PagePool", "counts ", counts_.num_allocated, " allocated, ", counts_.num_reused,
                 " reused and ", counts_.num_freed, " freed, but ", num_held_pages(), " held");
  }
  const Page& null_page = at(kNullPage);
  if (null_page.ref_count != 0 || null_page.is_cached() || free_pages_.contains(kNullPage)) {
    throw_broken("PagePool", "the null page is in use");
  }
  for (PageId page = kNullPage + 1; page < num_pages(); ++page) {
    if (at(page).ref_count < 0 || (at(page).ref_count == 0) != free_pages_.contains(page)) {
      throw_broken("PagePool", "page ", page, " is held ", at(page).ref_count, " times and is",
                   free_pages_.contains(page) ? "" : " not", " in the free queue");
    }
  }
}

}  // namespace pagedkv
