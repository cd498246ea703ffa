#include <memory>
#include <new>
#include <utility>

#include "pagedkv/error.h"
#include "pagedkv/pool/page_pool.h"

// What a pool tells of its pages, where somebody asked.
namespace pagedkv {

PageWatch& PagePool::watch() {
  if (watch_ == nullptr) watch_ = std::make_unique<PageWatch>();
  return *watch_;
}

void PagePool::start_events(std::size_t max_pages) {
  constexpr auto kOperation = "PagePool.start_events";
  if (events() != nullptr) throw_value_error(kOperation, "events are on already");
  if (max_pages < 1) throw_value_error(kOperation, "max_pages must be >= 1, got ", max_pages);
  watch().events = std::make_unique<EventLog>(max_pages);
  tell_contents(*events());
}

void PagePool::stop_events() {
  if (events() == nullptr) throw_value_error("PagePool.stop_events", "events are off");
  watch_->events = nullptr;
  if (watch_->residency == nullptr) watch_ = nullptr;
}

EventBatch PagePool::take_events() {
  EventLog* log = events();
  if (log == nullptr) throw_value_error("PagePool.take_events", "events are off");
  if (!log->is_lost()) return log->take();
  EventLog all(pages_.size());
  all.cleared();
  tell_contents(all);
  if (all.is_lost()) throw std::bad_alloc();
  log->take();
  return all.take();
}

void PagePool::start_residency(double sample_rate, const std::vector<std::int64_t>& bounds) {
  if (residency() != nullptr) {
    throw_value_error("PagePool.start_residency", "pages are sampled already");
  }
  auto residency = std::make_unique<PageResidency>(sample_rate, bounds);
  watch().residency = std::move(residency);
}

// Of the pages with one content in a shard, one is told of.
void PagePool::tell_contents(EventLog& log) const {
  for (const PageId page : index_.in_order()) {
    const Page& record = at(page);
    const ShardId shard = shards().shard_of(page);
    if (find(record.hash, record.group(), shard) != page) continue;
    log.stored(record.hash, record.group(), shard);
  }
}

void PagePool::tell_dealt_out() {
  if (watch_->events == nullptr) return;
  watch_->events->cleared();
  tell_contents(*watch_->events);
}

void PagePool::tell_restored() {
  if (watch_->events != nullptr) tell_contents(*watch_->events);
}

void PagePool::tell_handed_out(PageId page) {
  const Page& record = at(page);
  if (watch_->residency != nullptr) watch_->residency->handed_out(page, record.is_cached(), now_);
  if (watch_->events == nullptr || !record.is_cached()) return;
  const ShardId shard = shards().shard_of(page);
  const PageRange range = shards().pages_of(shard);
  for (PageId other = record.duplicate_next; other != page; other = at(other).duplicate_next) {
    if (range.contains(other)) return;
  }
  watch_->events->removed(record.hash, record.group(), shard);
}

void PagePool::tell_held(std::span<const PageId> pages) {
  if (watch_->residency == nullptr) return;
  for (const PageId page : pages) check_page("PagePool.hold", page);
  for (const PageId page : pages) watch_->residency->used(page, now_);
}

void PagePool::tell_cached(PageId page, const PageHash& hash, GroupId group) {
  if (watch_->events == nullptr) return;
  const ShardId shard = shards().shard_of(page);
  if (find(hash, group, shard) == kNoPage) watch_->events->stored(hash, group, shard);
}

void PagePool::tell_cleared() {
  if (watch_->residency != nullptr) watch_->residency->cleared();
  if (watch_->events != nullptr) watch_->events->cleared();
}

}  // namespace pagedkv
