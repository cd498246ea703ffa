#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "pagedkv/bytes.h"
#include "pagedkv/manager/manager_calls.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// What a call did to one row of its request's page tables: from position `first` on, the row is
/// `pages` now.
struct RowChange {
  GroupId group = 0;
  std::int32_t first = 0;
  std::vector<PageId> pages;

  friend bool operator==(const RowChange&, const RowChange&) = default;
};

/// All that came of a call, as far as callers can see it.
struct CallAnswer {
  std::optional<std::string> error;  ///< Message of the exception.
  std::int64_t value = 0;            ///< What the call returned; 0 if nothing.
  GroupPages found;                  ///< Pages of the prefix that was found.
  std::vector<RowChange> rows;       ///< Those that are other ones now.
  PageId num_free_pages = 0;         ///< Of the pool, now.
  PageId num_cached_pages = 0;       ///< Of the pool, now.

  friend bool operator==(const CallAnswer&, const CallAnswer&) = default;
};

/// The page table rows of a request when one last looked.
class SeenRows {
 public:
  /// What has changed since the last call; nothing of a request that holds no pages of `manager`.
  /// O(groups), and O(pages) if anything has.
  std::vector<RowChange> look(const CacheManager& manager, const Request& request);

 private:
  std::int32_t num_changes_ = -1;
  GroupPages rows_;
};

/// What came of a call that has just been made and returned `value`; or threw, with the message
/// `error`. `seen` are the rows of its request, null if it is about none.
CallAnswer answer_of(const CacheManager& manager, const ManagerCall& call, SeenRows* seen,
                     std::int64_t value, const char* error = nullptr);

void put_answer(ByteWriter& writer, const CallAnswer& answer);
CallAnswer get_answer(ByteReader& reader);

/// "5; found [1 2]; row 0 from 3 on: [7 8]; 11 pages free, 4 cached"
std::string text_of(const CallAnswer& answer);

}  // namespace pagedkv
