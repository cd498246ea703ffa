#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "attention_mask.h"
#include "checks.h"
#include "pagedkv/math.h"

/// The requests of a step, as the device arrays describe them. Nothing in them is trusted.
namespace pagedkv {

/// Why a request cannot be computed.
enum class RequestDefect : uint8_t { kNone, kMask, kQueryStarts, kContextLength };

struct AttentionBatch {
  std::span<const int32_t> query_starts;
  std::span<const int32_t> context_lens;
  std::span<const int32_t> page_table;
  int64_t width;
  int64_t num_tokens;
  int64_t num_pages;
  int64_t page_size;
  AttentionMask mask;

  /// Tokens of a request: a row of the page table's.
  int64_t capacity() const { return checked_mul(width, page_size).value_or(INT64_MAX); }

  int64_t num_queries(size_t request) const {
    return int64_t{query_starts[request + 1]} - query_starts[request];
  }

  /// Position of the first query. Requires a valid request.
  int64_t first_position(size_t request) const {
    return int64_t{context_lens[request]} - num_queries(request);
  }

  /// Pages up to the last token's. Requires a valid request.
  std::span<const int32_t> page_ids(size_t request) const {
    const int64_t length = context_lens[request];
    const int64_t count = length == 0 ? 0 : ceil_div(length, page_size);
    return page_table.subspan(request * static_cast<size_t>(width), static_cast<size_t>(count));
  }
};

/// What is wrong with each request. Those with a defect of their query_starts come with all those
/// after them that start before the highest start so far: no two valid requests share a token.
std::vector<RequestDefect> find_defects(const AttentionBatch& batch);

/// Fails with the first defect, or page id that a query would read and that is out of range.
ffi::Error check_requests(std::string_view operation, const AttentionBatch& batch,
                          std::span<const RequestDefect> defects);

/// How many requests have a defect, and how many page ids that are to be read are out of range.
int32_t count_dropped(const AttentionBatch& batch, std::span<const RequestDefect> defects);

}  // namespace pagedkv
