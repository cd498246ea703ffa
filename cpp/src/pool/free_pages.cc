#include "pagedkv/pool/free_pages.h"

#include <algorithm>

#include "pagedkv/error.h"

namespace pagedkv {

FreePages::FreePages(std::span<Page> pages)
    : pages_(pages), shards_(static_cast<PageId>(pages.size())), queues_(1, FreeQueue(pages)) {}

void FreePages::set_shards(const PageShards& shards) {
  const std::vector<PageId> order = in_order();
  std::vector<FreeQueue> queues(static_cast<std::size_t>(shards.size()), FreeQueue(pages_));
  for (const PageId page : order) queue_of(page).remove(page);
  shards_ = shards;
  queues_.swap(queues);
  for (const PageId page : order) queue_of(page).push_back(page);
}

FreeQueue& FreePages::coldest_queue() {
  FreeQueue* coldest = &queues_.front();
  for (FreeQueue& queue : std::span(queues_).subspan(1)) {
    if (queue.front() == kNoPage) continue;
    if (coldest->front() == kNoPage || at(queue.front()).freed_at < at(coldest->front()).freed_at) {
      coldest = &queue;
    }
  }
  return *coldest;
}

PageId FreePages::pop_front(ShardId shard) {
  FreeQueue& queue =
      shard == kAnyShard ? coldest_queue() : queues_[static_cast<std::size_t>(shard)];
  const PageId page = queue.pop_front();
  if (page != kNoPage) --size_;
  return page;
}

void FreePages::push_back(PageId page) {
  at(page).freed_at = clock_++;
  queue_of(page).push_back(page);
  ++size_;
}

void FreePages::remove(PageId page) {
  queue_of(page).remove(page);
  --size_;
}

std::vector<PageId> FreePages::in_order() const {
  std::vector<PageId> order;
  order.reserve(static_cast<std::size_t>(size_));
  for (const FreeQueue& queue : queues_) {
    for (PageId page = queue.front(); page != kNoPage; page = at(page).free_next) {
      order.push_back(page);
    }
  }
  if (queues_.size() > 1) {
    std::ranges::sort(order, {}, [this](PageId page) { return at(page).freed_at; });
  }
  return order;
}

void FreePages::check_invariants() const {
  PageId linked = 0;
  for (ShardId shard = 0; shard < shards_.size(); ++shard) {
    const FreeQueue& queue = queues_[static_cast<std::size_t>(shard)];
    queue.check_invariants();
    linked += queue.size();
    for (PageId page = queue.front(); page != kNoPage; page = at(page).free_next) {
      if (shards_.shard_of(page) != shard) {
        throw_broken("FreePages", "page ", page, " is in the queue of shard ", shard);
      }
      const PageId next = at(page).free_next;
      if (next != kNoPage && at(next).freed_at <= at(page).freed_at) {
        throw_broken("FreePages", "page ", next, " is younger than page ", page, " before it");
      }
    }
  }
  if (linked != size_) throw_broken("FreePages", "holds ", linked, " pages, size is ", size_);
}

}  // namespace pagedkv
