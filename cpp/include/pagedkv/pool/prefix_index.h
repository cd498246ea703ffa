#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "pagedkv/hash/page_hash.h"
#include "pagedkv/pool/page.h"
#include "pagedkv/pool/page_shards.h"
#include "pagedkv/pool/tag_table.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// Finds the page that holds given content: (digest, group) to page id.
///
/// A table of page ids; the keys themselves are in the page records. Pages with one and the same
/// key form a ring in the records, and the table has the oldest of them. It is made for all pages,
/// so nothing allocates after construction. Expected O(1) an operation, `clear()` and checks aside.
/// The records must outlive the index. Not thread-safe.
///
/// Invariant: a page is in exactly one ring iff `is_cached()`, and the table has each ring's oldest
/// page.
class PrefixIndex {
 public:
  /// Starts empty: no page of `pages` may be cached.
  explicit PrefixIndex(std::span<Page> pages);

  /// Number of distinct (digest, group) keys.
  PageId num_keys() const { return num_keys_; }

  /// Number of pages in the index, duplicates included.
  PageId num_pages() const { return num_pages_; }

  /// The oldest page with this key, or `kNoPage`.
  PageId find(const PageHash& hash, GroupId group) const {
    return table_.find(key_of(hash, group),
                       [&](PageId page) { return has_key(page, hash, group); });
  }

  /// The oldest page with this key among `range`, or `kNoPage`. O(pages with this key).
  PageId find(const PageHash& hash, GroupId group, PageRange range) const;

  /// Fetches the key's place in the table from memory, without waiting for it.
  void prefetch(const PageHash& hash, GroupId group) const { table_.prefetch(key_of(hash, group)); }

  /// After `prefetch`: fetches the record that `find` is going to compare the key with.
  void prefetch_record(const PageHash& hash, GroupId group) const {
    const PageId page = table_.find(key_of(hash, group), [](PageId) { return true; });
    if (page == kNoPage) return;
    __builtin_prefetch(&at(page));
    asm volatile("");  // else GCC takes this for a function that does nothing, and calls it nowhere
  }

  /// Adds `page` as the youngest with this key. Requires a page other than `kNullPage` that is
  /// not cached, and `0 <= group < Page::kMaxGroups`.
  void insert(PageId page, const PageHash& hash, GroupId group) {
    Page& record = at(page);
    record.hash = hash;
    record.set_group(group);
    record.duplicate_prev = record.duplicate_next = page;
    ++num_pages_;
    const PageId oldest = table_.find_or_insert(
        key_of(hash, group), page, [&](PageId other) { return has_key(other, hash, group); });
    if (oldest != kNoPage) return join_ring(page, oldest);
    ++num_keys_;
  }

  /// Forgets `page`; the next younger duplicate takes its place. Requires a cached page.
  void remove(PageId page) {
    Page& record = at(page);
    if (record.duplicate_next == page) [[likely]] {
      table_.erase(key_of(record.hash, record.group()), page);
      --num_keys_;
    } else {
      leave_ring(page);
    }
    record.set_group(kNoGroup);
    record.duplicate_prev = record.duplicate_next = kNullPage;
    --num_pages_;
  }

  /// Forgets every page. O(pages).
  void clear();

  /// All pages in the index by rising id, but duplicates right after each other, the oldest first.
  /// O(pages).
  std::vector<PageId> in_order() const;

  /// Throws `std::logic_error` naming what does not hold. For tests.
  void check_invariants() const;

 private:
  bool has_key(PageId page, const PageHash& hash, GroupId group) const {
    return at(page).group() == group && at(page).hash == hash;
  }
  void join_ring(PageId page, PageId oldest);
  void leave_ring(PageId page);

  Page& at(PageId page) { return pages_[static_cast<std::size_t>(page)]; }
  const Page& at(PageId page) const { return pages_[static_cast<std::size_t>(page)]; }

  // Digests are uniform already; the multiplication only spreads the group over the bits.
  static std::uint64_t key_of(const PageHash& hash, GroupId group) {
    std::uint64_t word;
    std::memcpy(&word, hash.bytes.data(), sizeof word);
    word ^= static_cast<std::uint64_t>(group) * 0x9e3779b97f4a7c15U;
    word = (word ^ (word >> 32)) * 0xd6e8feb86659fd93U;
    return word ^ (word >> 32);
  }

  std::span<Page> pages_;
  TagTable table_;
  PageId num_keys_ = 0;
  PageId num_pages_ = 0;
};

}  // namespace pagedkv
