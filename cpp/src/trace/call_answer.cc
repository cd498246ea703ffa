#include "pagedkv/trace/call_answer.h"

#include <algorithm>
#include <span>
#include <sstream>
#include <utility>

#include "pagedkv/trace/call_bytes.h"

namespace pagedkv {

std::vector<RowChange> SeenRows::look(const CacheManager& manager, const Request& request) {
  std::vector<RowChange> changes;
  if (!manager.holds(request)) {
    num_changes_ = -1;
    rows_.clear();
    return changes;
  }
  if (std::exchange(num_changes_, manager.num_changes(request)) == num_changes_) return changes;
  rows_.resize(static_cast<std::size_t>(manager.num_groups()));
  for (GroupId group = 0; group < manager.num_groups(); ++group) {
    std::vector<PageId>& seen = rows_[static_cast<std::size_t>(group)];
    const auto row = manager.page_ids(request, group);
    const auto first = std::ranges::mismatch(row, seen).in1;
    if (first == row.end() && row.size() == seen.size()) continue;
    changes.push_back({group, static_cast<std::int32_t>(first - row.begin()), {first, row.end()}});
    seen.assign(row.begin(), row.end());
  }
  return changes;
}

CallAnswer answer_of(const CacheManager& manager, const ManagerCall& call, SeenRows* seen,
                     std::int64_t value, const char* error) {
  CallAnswer answer;
  answer.value = value;
  if (error != nullptr) {
    answer.error = error;
  } else if (const GroupPages* found = found_by(call)) {
    answer.found = *found;
  }
  if (seen != nullptr) answer.rows = seen->look(manager, *request_of(call));
  answer.num_free_pages = manager.pool().num_free_pages();
  answer.num_cached_pages = manager.pool().num_cached_pages();
  return answer;
}

void put_answer(ByteWriter& writer, const CallAnswer& answer) {
  writer.put_uint(answer.error.has_value());
  if (answer.error) writer.put_text(*answer.error);
  writer.put_int(answer.value);
  put_rows(writer, answer.found);
  writer.put_uint(answer.rows.size());
  for (const RowChange& row : answer.rows) {
    writer.put_int(row.group);
    writer.put_int(row.first);
    writer.put_ints(row.pages);
  }
  writer.put_int(answer.num_free_pages);
  writer.put_int(answer.num_cached_pages);
}

CallAnswer get_answer(ByteReader& reader) {
  CallAnswer answer;
  if (reader.get_bool()) answer.error = reader.get_text();
  answer.value = reader.get_int();
  answer.found = get_rows(reader);
  answer.rows.resize(reader.get_count(3));
  for (RowChange& row : answer.rows) {
    row.group = reader.get_int_as<GroupId>();
    row.first = reader.get_int_as<std::int32_t>();
    row.pages = reader.get_ints();
  }
  answer.num_free_pages = reader.get_int_as<PageId>();
  answer.num_cached_pages = reader.get_int_as<PageId>();
  return answer;
}

std::string text_of(const CallAnswer& answer) {
  std::ostringstream text;
  if (answer.error) {
    text << "error " << *answer.error;
  } else {
    text << answer.value;
  }
  if (!answer.found.empty()) text << "; found " << text_of(answer.found);
  for (const RowChange& row : answer.rows) {
    text << "; row " << row.group << " from " << row.first << " on: " << text_of({row.pages});
  }
  text << "; " << answer.num_free_pages << " pages free, " << answer.num_cached_pages << " cached";
  return std::move(text).str();
}

}  // namespace pagedkv
