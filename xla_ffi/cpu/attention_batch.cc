#include "attention_batch.h"

#include <algorithm>

#include "ids.h"

namespace pagedkv {
namespace {

// Calls `function(i)` for each page, by its place in the table, of which a query of the request sees
// a token. Stops when it returns false. Requires a valid request.
template <typename Function>
void for_each_read_page(const AttentionBatch& batch, size_t request, const Function& function) {
  if (batch.num_queries(request) == 0) return;
  const auto num_pages = static_cast<int64_t>(batch.page_ids(request).size());
  const int64_t sink_pages = std::min(
      num_pages, ceil_div(std::min(batch.mask.num_sink_tokens, int64_t{batch.context_lens[request]}),
                          batch.page_size));
  const int64_t first_seen = batch.mask.first_seen(batch.first_position(request));
  for (int64_t i = 0; i < sink_pages; ++i) {
    if (!function(static_cast<size_t>(i))) return;
  }
  for (int64_t i = std::max(sink_pages, first_seen / batch.page_size); i < num_pages; ++i) {
    if (!function(static_cast<size_t>(i))) return;
  }
}

template <typename... Parts>
ffi::Error out_of_range(std::string_view operation, const Parts&... parts) {
  return ffi::Error(ffi::ErrorCode::kOutOfRange, error_message(operation, parts...));
}

bool is_valid(const AttentionMask& mask) {
  return mask.window >= 1 && mask.chunk >= 1 && mask.num_sink_tokens >= 0;
}

ffi::Error check_mask(std::string_view operation, const AttentionMask& mask) {
  if (mask.window < 1) {
    return out_of_range(operation, "sliding_window ", mask.window, " must be at least 1");
  }
  if (mask.chunk < 1) {
    return out_of_range(operation, "attention_chunk_size ", mask.chunk, " must be at least 1");
  }
  if (mask.num_sink_tokens < 0) {
    return out_of_range(operation, "num_sink_tokens ", mask.num_sink_tokens,
                        " must not be negative");
  }
  return ffi::Error::Success();
}

}  // namespace

std::vector<RequestDefect> find_defects(const AttentionBatch& batch) {
  std::vector<RequestDefect> defects(batch.context_lens.size(), RequestDefect::kNone);
  const bool has_mask = is_valid(batch.mask);
  const int64_t capacity = batch.capacity();
  int64_t highest_start = 0;
  for (size_t request = 0; request < defects.size(); ++request) {
    const int64_t start = batch.query_starts[request];
    const int64_t length = batch.context_lens[request];
    if (!has_mask) {
      defects[request] = RequestDefect::kMask;
    } else if (start < highest_start || batch.num_queries(request) < 0 ||
               batch.query_starts[request + 1] > batch.num_tokens) {
      defects[request] = RequestDefect::kQueryStarts;
    } else if (length < batch.num_queries(request) || length > capacity) {
      defects[request] = RequestDefect::kContextLength;
    }
    highest_start = std::max(highest_start, start);
  }
  return defects;
}

ffi::Error check_requests(std::string_view operation, const AttentionBatch& batch,
                          std::span<const RequestDefect> defects) {
  if (auto error = check_mask(operation, batch.mask); error.failure()) return error;
  for (size_t request = 0; request < defects.size(); ++request) {
    if (defects[request] == RequestDefect::kQueryStarts) {
      return out_of_range(operation, "query_starts ", batch.query_starts[request], " to ",
                          batch.query_starts[request + 1], " of request ", request,
                          " must not decrease, and be in [0, ", batch.num_tokens, ']');
    }
    if (defects[request] == RequestDefect::kContextLength) {
      return out_of_range(operation, "context_lens ", batch.context_lens[request], " of request ",
                          request, " is out of range [", batch.num_queries(request), ", ",
                          batch.capacity(), "], from its queries to the width of page_table");
    }
    const std::span<const int32_t> ids = batch.page_ids(request);
    ffi::Error error;
    for_each_read_page(batch, request, [&](size_t i) {
      if (in_range(ids[i], batch.num_pages)) return true;
      error = out_of_range(operation, "page ", ids[i], " at position [", request, ", ", i,
                           "] is out of range [0, ", batch.num_pages, ')');
      return false;
    });
    if (error.failure()) return error;
  }
  return ffi::Error::Success();
}

int32_t count_dropped(const AttentionBatch& batch, std::span<const RequestDefect> defects) {
  int64_t num_dropped = 0;
  for (size_t request = 0; request < defects.size(); ++request) {
    if (defects[request] != RequestDefect::kNone) {
      ++num_dropped;
      continue;
    }
    const std::span<const int32_t> ids = batch.page_ids(request);
    for_each_read_page(batch, request, [&](size_t i) {
      num_dropped += in_range(ids[i], batch.num_pages) ? 0 : 1;
      return true;
    });
  }
  return static_cast<int32_t>(std::min<int64_t>(num_dropped, INT32_MAX));
}

}  // namespace pagedkv
