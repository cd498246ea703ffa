#include "pagedkv/watch/event_log.h"

#include <exception>
#include <utility>

namespace pagedkv {

void EventLog::start_row(const RowSource& source) noexcept {
  row_.emplace(OpenRow{.source = source, .next_page = source.first_page, .extra_keys = nullptr});
}

void EventLog::lose() noexcept {
  batch_ = {};
  is_lost_ = true;
}

// Pages are told of while they change hands: a log without memory must not stop that.
template <typename Work>
void EventLog::append(Work work) noexcept {
  if (is_lost_) return;
  try {
    if (batch_.digests.size() >= max_pages_) return lose();
    work();
  } catch (const std::exception&) {
    lose();
  }
}

void EventLog::add_page(PageEventKind kind, const PageHash& hash, GroupId group, ShardId shard,
                        bool extends) {
  if (!extends) {
    PageEvent event{.kind = kind, .shard = shard, .group = group, .parent = {}, .extra_keys = {}};
    event.digests_begin = batch_.digests.size();
    event.tokens_begin = batch_.tokens.size();
    batch_.events.push_back(std::move(event));
  }
  batch_.digests.push_back(hash);
  ++batch_.events.back().num_pages;
}

void EventLog::stored(const PageHash& hash, GroupId group, ShardId shard) noexcept {
  append([&] {
    if (!row_) return add_page(PageEventKind::kStored, hash, group, shard, false);
    const RowSource& source = row_->source;
    const auto ratio = static_cast<std::size_t>(source.page_size / source.hash_page_size);
    const auto hash_of = [&](std::int32_t page) -> const PageHash& {
      return source.hashes[(static_cast<std::size_t>(page) + 1) * ratio - 1];
    };
    const auto num_pages = static_cast<std::int32_t>(source.hashes.size() / ratio);
    std::int32_t page = row_->next_page;
    while (page < num_pages && hash_of(page) != hash) ++page;
    if (page == num_pages) {  // no page of this row
      row_->has_event = false;
      return add_page(PageEventKind::kStored, hash, group, shard, false);
    }
    const bool extends =
        row_->has_event && page == row_->next_page && batch_.events.back().shard == shard;
    add_page(PageEventKind::kStored, hash, group, shard, extends);
    PageEvent& event = batch_.events.back();
    if (!extends) {
      if (!row_->extra_keys && !source.extra_keys->empty()) {
        row_->extra_keys = std::make_shared<const ExtraKeys>(*source.extra_keys);
      }
      event.page_size = source.page_size;
      event.hash_page_size = source.hash_page_size;
      event.first_page = page;
      if (page > 0) event.parent = hash_of(page - 1);
      event.extra_keys = row_->extra_keys;
      row_->has_event = true;
    }
    const auto size = static_cast<std::size_t>(source.page_size);
    const auto tokens = source.tokens.subspan(static_cast<std::size_t>(page) * size, size);
    batch_.tokens.insert(batch_.tokens.end(), tokens.begin(), tokens.end());
    row_->next_page = page + 1;
  });
}

void EventLog::removed(const PageHash& hash, GroupId group, ShardId shard) noexcept {
  append([&] {
    if (row_) row_->has_event = false;
    const bool extends = !batch_.events.empty() &&
                         batch_.events.back().kind == PageEventKind::kRemoved &&
                         batch_.events.back().group == group && batch_.events.back().shard == shard;
    add_page(PageEventKind::kRemoved, hash, group, shard, extends);
  });
}

void EventLog::cleared() noexcept {
  batch_ = {};
  is_lost_ = false;
  append([&] { batch_.events.push_back({.parent = {}, .extra_keys = {}}); });
}

EventBatch EventLog::take() noexcept {
  is_lost_ = false;
  return std::exchange(batch_, {});
}

}  // namespace pagedkv
