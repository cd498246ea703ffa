#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "pagedkv/hash/extra_keys.h"
#include "pagedkv/hash/page_hash.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// Where the digests of a row of pages come from.
struct RowSource {
  std::span<const TokenId> tokens;   ///< All tokens of the request.
  const ExtraKeys* extra_keys;       ///< Those of the request.
  std::span<const PageHash> hashes;  ///< In pages of `hash_page_size`.
  std::int32_t hash_page_size = 0;
  std::int32_t page_size = 0;   ///< Of the group: a multiple of `hash_page_size`.
  std::int32_t first_page = 0;  ///< No page before this one is going to be stored.
};

enum class PageEventKind : std::uint8_t {
  kStored,   ///< Content can be found that could not be before.
  kRemoved,  ///< Content cannot be found any more.
  kCleared,  ///< No content can be found any more, in any group and shard.
};

/// A change of what can be found in the pages of a shard: of a run of pages at once.
struct PageEvent {
  PageEventKind kind = PageEventKind::kCleared;
  ShardId shard = kAnyShard;
  GroupId group = kNoGroup;
  std::size_t digests_begin = 0;  ///< In `EventBatch::digests`.
  std::size_t num_pages = 0;

  // What stored pages are made of. Pages of one event follow each other in one request.
  std::int32_t page_size = 0;       ///< Tokens of a page; 0: nobody knows what is in them.
  std::int32_t hash_page_size = 0;  ///< What extra keys were hashed in.
  std::int32_t first_page = 0;      ///< Position of the first page in its request.
  std::optional<PageHash> parent;   ///< Of the page before it, if it is not the first.
  std::size_t tokens_begin = 0;     ///< In `EventBatch::tokens`; there are `num_pages * page_size`.
  std::shared_ptr<const ExtraKeys> extra_keys;  ///< Null: none.
};

/// Events in the order in which they happened, in three arrays.
struct EventBatch {
  std::vector<PageEvent> events;
  std::vector<PageHash> digests;
  std::vector<TokenId> tokens;

  std::span<const PageHash> digests_of(const PageEvent& event) const {
    return std::span(digests).subspan(event.digests_begin, event.num_pages);
  }
  std::span<const TokenId> tokens_of(const PageEvent& event) const {
    return std::span(tokens).subspan(event.tokens_begin,
                                     event.num_pages * static_cast<std::size_t>(event.page_size));
  }
};

/// What has happened to the content of a pool since somebody last asked. Append-only: runs of pages
/// that are stored or removed after each other are one event. The events are those of vLLM's block
/// pool (`BlockStored`, `BlockRemoved`, `AllBlocksCleared`).
///
/// It never fails. When it has more than `max_pages` pages, or memory is short, it forgets all, and
/// `is_lost` says so: whoever knows the pool has to tell anew what is in it. Not thread-safe.
class EventLog {
 public:
  explicit EventLog(std::size_t max_pages) : max_pages_(max_pages) {}

  /// Content that nobody else of `shard` has can be found from now on. With a `Row` around it, it
  /// is one of that row's pages, after those stored before.
  void stored(const PageHash& hash, GroupId group, ShardId shard) noexcept;

  /// Content that nobody else of `shard` has cannot be found any more.
  void removed(const PageHash& hash, GroupId group, ShardId shard) noexcept;

  /// Nothing can be found any more. What was logged before does not matter then.
  void cleared() noexcept;

  /// Whether events are missing.
  bool is_lost() const { return is_lost_; }

  /// What was logged since the last call.
  EventBatch take() noexcept;

  /// Tells the log what the pages are made of that are stored while it lives.
  class Row {
   public:
    Row(EventLog& log, const RowSource& source) : log_(log) { log_.start_row(source); }
    ~Row() { log_.row_.reset(); }
    Row(const Row&) = delete;
    Row& operator=(const Row&) = delete;

   private:
    EventLog& log_;
  };

 private:
  struct OpenRow {
    RowSource source;
    std::int32_t next_page;
    std::shared_ptr<const ExtraKeys> extra_keys;  // made for the first event
    bool has_event = false;                       // the last event is one of this row
  };

  void start_row(const RowSource& source) noexcept;
  void lose() noexcept;
  template <typename Work>
  void append(Work work) noexcept;
  void add_page(PageEventKind kind, const PageHash& hash, GroupId group, ShardId shard,
                bool extends);

  EventBatch batch_;
  std::optional<OpenRow> row_;
  std::size_t max_pages_;
  bool is_lost_ = false;
};

}  // namespace pagedkv
