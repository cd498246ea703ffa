#include "pagedkv/pool/free_pages.h"

#include <algorithm>
#include <tuple>

#include "pagedkv/error.h"

namespace pagedkv {

FreePages::FreePages(std::span<Page> pages)
    : pages_(pages), shards_(static_cast<PageId>(pages.size())), queues_(1, FreeQueue(pages)) {}

void FreePages::add_unused(PageRange range) {
  queues_.front().add_unused(range);
  size_ = range.end - range.begin;
}

void FreePages::set_shards(const PageShards& shards) {
  const std::vector<PageId> order = queued();
  std::vector<FreeQueue> queues(static_cast<std::size_t>(shards.size()), FreeQueue(pages_));
  for (const PageId page : order) queue_of(page).remove(page);
  shards_ = shards;
  queues_.swap(queues);
  for (const PageId page : order) queue_of(page).push_back(page);
  if (lanes_) lanes_->set_shards(shards);
}

FreeQueue& FreePages::coldest_queue() {
  FreeQueue* coldest = &queues_.front();
  for (FreeQueue& queue : std::span(queues_).subspan(1)) {
    if (queue.front() == kNoPage) continue;
    if (coldest->front() == kNoPage ||
        at(queue.front()).freed_at() < at(coldest->front()).freed_at()) {
      coldest = &queue;
    }
  }
  return *coldest;
}

// A page that comes back: to its lane, if it has content.
bool FreePages::takes_lane(PageId page) {
  const bool is_cached = at(page).is_cached();
  is_cached ? lanes_->push(page) : lanes_->forget(page);
  return is_cached;
}

void FreePages::push_front(PageId page) {
  at(page).set_freed_at(--front_clock_);
  ++size_;
  if (lanes_) lanes_->forget(page);
  queue_of(page).push_front(page);
}

void FreePages::remove(PageId page) {
  --size_;
  if (lanes_) [[unlikely]] {
    if (at(page).is_cached()) return lanes_->remove(page);
    lanes_->start(page, kDefaultTerm);
  }
  queue_of(page).remove(page);
}

PageId FreePages::pop_for(ShardId shard, TermId term) {
  FreeQueue& queue = source(shard);
  const RetentionLanes::Choice choice = lanes_->choose(shard, term);
  PageId page = queue.front();
  if (page != kNoPage && lanes_->goes_after(choice, at(page).freed_at())) {
    queue.pop_front();
  } else if (choice.lane != RetentionLanes::kNoLane) {
    page = lanes_->pop(choice);
  } else {
    return kNoPage;
  }
  lanes_->start(page, term);
  --size_;
  return page;
}

RetentionLanes& FreePages::start_retention() {
  if (lanes_) return *lanes_;
  lanes_ = std::make_unique<RetentionLanes>(pages_, shards_);
  for (const PageId page : queued()) {
    if (!at(page).is_cached()) continue;
    queue_of(page).remove(page);
    lanes_->start(page, kDefaultTerm);
    lanes_->push(page);
  }
  return *lanes_;
}

void FreePages::drop_content() {
  if (!lanes_) return;
  std::vector<PageId> order = queued();
  for (const PageId page : order) queue_of(page).remove(page);
  for (const auto& rank : lanes_->ranks()) order.push_back(rank.page);
  lanes_->clear();
  std::ranges::stable_sort(order, {}, [this](PageId page) { return at(page).freed_at(); });
  for (const PageId page : order) queue_of(page).push_back(page);
}

std::vector<PageId> FreePages::in_order() const {
  if (!lanes_) return queued();
  auto order = lanes_->ranks();
  // Pages without content are no loss: see RetentionLanes::goes_after.
  const bool is_blank_first = std::ranges::any_of(order, [](const auto& rank) {
    return !rank.is_over_quota && rank.priority < RetentionTerm::kDefaultPriority;
  });
  for (const PageId page : queued()) {
    order.push_back(
        {false, is_blank_first ? -1 : RetentionTerm::kDefaultPriority, at(page).freed_at(), page});
  }
  std::ranges::stable_sort(order, {}, [](const auto& rank) {
    return std::tuple(!rank.is_over_quota, rank.priority, rank.freed_at);
  });
  std::vector<PageId> pages;
  for (const auto& rank : order) pages.push_back(rank.page);
  return pages;
}

// The pages in the queues, by stamp.
std::vector<PageId> FreePages::queued() const {
  std::vector<PageId> order;
  order.reserve(static_cast<std::size_t>(size_));
  for (const FreeQueue& queue : queues_) {
    for (PageId page = queue.front(); page != kNoPage; page = queue.next(page)) {
      order.push_back(page);
    }
  }
  if (queues_.size() > 1) {
    std::ranges::stable_sort(order, {}, [this](PageId page) { return at(page).freed_at(); });
  }
  return order;
}

void FreePages::check_invariants() const {
  PageId linked = 0;
  for (ShardId shard = 0; shard < shards_.size(); ++shard) {
    const FreeQueue& queue = queues_[static_cast<std::size_t>(shard)];
    queue.check_invariants();
    linked += queue.size();
    for (PageId page = queue.front(); page != kNoPage; page = queue.next(page)) {
      if (shards_.shard_of(page) != shard) {
        throw_broken("FreePages", "page ", page, " is in the queue of shard ", shard);
      }
      if (lanes_ && at(page).is_cached()) {
        throw_broken("FreePages", "page ", page, " has content and is in no lane");
      }
      const PageId next = queue.next(page);
      const bool is_unused =
          next != kNoPage && at(next).freed_at() == 0 && at(page).freed_at() == 0;
      if (next != kNoPage && !is_unused && at(next).freed_at() <= at(page).freed_at()) {
        throw_broken("FreePages", "page ", next, " is younger than page ", page, " before it");
      }
    }
  }
  if (lanes_) {
    lanes_->check_invariants();
    linked += lanes_->size();
  }
  if (linked != size_) throw_broken("FreePages", "holds ", linked, " pages, size is ", size_);
}

}  // namespace pagedkv
