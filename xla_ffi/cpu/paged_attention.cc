#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "attention_kernel.h"
#include "checks.h"
#include "handlers.h"
#include "ids.h"
#include "pagedkv/math.h"
#include "parallel_for.h"

namespace pagedkv {
namespace {

constexpr std::string_view kOperation = "paged_attention";
constexpr size_t kNumIdAxes = 2;  // a slot runs over pages and the rows of a page
constexpr size_t kRowRank = 2;    // heads and their elements

// Rows of a block: enough that each key loaded is used often, and few enough to stay in the cache.
constexpr int64_t kBlockRows = 48;
// Blocks for each thread, if there can be: they are not of the same size.
constexpr int64_t kBlocksPerThread = 4;
// Multiplications below which waking another thread costs more than it gives.
constexpr int64_t kSerialWork = int64_t{1} << 20;

// The requests of a step, as the device arrays describe them. Nothing in them is trusted.
struct Batch {
  std::span<const int32_t> query_starts;
  std::span<const int32_t> context_lens;
  std::span<const int32_t> page_table;
  int64_t width;
  int64_t num_tokens;
  int64_t page_size;
  int64_t window;    // of tokens that a query sees, itself among them
  int64_t capacity;  // tokens of a request: a row of the page table's

  int64_t num_queries(size_t request) const {
    return int64_t{query_starts[request + 1]} - query_starts[request];
  }

  // Pages up to the last token's. Requires a valid request.
  std::span<const int32_t> page_ids(size_t request) const {
    const int64_t length = context_lens[request];
    const int64_t num_pages = length == 0 ? 0 : ceil_div(length, page_size);
    return page_table.subspan(request * static_cast<size_t>(width), static_cast<size_t>(num_pages));
  }

  // The first of them that a query sees. Requires a valid request with a query.
  size_t first_page(size_t request) const {
    const int64_t first_position = int64_t{context_lens[request]} - num_queries(request);
    return static_cast<size_t>(std::max<int64_t>(0, first_position - window + 1) / page_size);
  }
};

// Why a request cannot be computed.
enum class Defect { kNone, kWindow, kQueryStarts, kContextLength };

// Requests with a defect of their query_starts come with all those after them that start before the
// highest start so far: no two valid requests share a token.
std::vector<Defect> find_defects(const Batch& batch) {
  std::vector<Defect> defects(batch.context_lens.size(), Defect::kNone);
  int64_t highest_start = 0;
  for (size_t request = 0; request < defects.size(); ++request) {
    const int64_t start = batch.query_starts[request];
    const int64_t length = batch.context_lens[request];
    if (batch.window < 1) {
      defects[request] = Defect::kWindow;
    } else if (start < highest_start || batch.num_queries(request) < 0 ||
               batch.query_starts[request + 1] > batch.num_tokens) {
      defects[request] = Defect::kQueryStarts;
    } else if (length < batch.num_queries(request) || length > batch.capacity) {
      defects[request] = Defect::kContextLength;
    }
    highest_start = std::max(highest_start, start);
  }
  return defects;
}

// The first defect, or page id that a query would read and that is out of range, as an error.
ffi::Error check_batch(const Batch& batch, std::span<const Defect> defects, int64_t num_pages) {
  const auto out_of_range = [](const auto&... parts) {
    return ffi::Error(ffi::ErrorCode::kOutOfRange, error_message(kOperation, parts...));
  };
  if (batch.window < 1) {
    return out_of_range("sliding_window ", batch.window, " must be at least 1");
  }
  for (size_t request = 0; request < defects.size(); ++request) {
    const int64_t num_queries = batch.num_queries(request);
    if (defects[request] == Defect::kQueryStarts) {
      return out_of_range("query_starts ", batch.query_starts[request], " to ",
                          batch.query_starts[request + 1], " of request ", request,
                          " must not decrease, and be in [0, ", batch.num_tokens, ']');
    }
    if (defects[request] == Defect::kContextLength) {
      return out_of_range("context_lens ", batch.context_lens[request], " of request ", request,
                          " is out of range [", num_queries, ", ", batch.capacity,
                          "], from its queries to the width of page_table");
    }
    if (num_queries == 0) continue;
    const std::span<const int32_t> ids = batch.page_ids(request);
    for (size_t i = batch.first_page(request); i < ids.size(); ++i) {
      if (in_range(ids[i], num_pages)) continue;
      return out_of_range("page ", ids[i], " at position [", request, ", ", i,
                          "] is out of range [0, ", num_pages, ')');
    }
  }
  return ffi::Error::Success();
}

int32_t count_dropped(const Batch& batch, std::span<const Defect> defects, int64_t num_pages) {
  int64_t num_dropped = 0;
  for (size_t request = 0; request < defects.size(); ++request) {
    if (defects[request] != Defect::kNone) {
      ++num_dropped;
    } else if (batch.num_queries(request) > 0) {
      num_dropped +=
          std::ranges::count_if(batch.page_ids(request).subspan(batch.first_page(request)),
                                [&](int32_t id) { return !in_range(id, num_pages); });
    }
  }
  return static_cast<int32_t>(std::min<int64_t>(num_dropped, INT32_MAX));
}

// Some query tokens of one request.
struct QueryRun {
  size_t request;
  int64_t first_token;
  int64_t first_position;
  int64_t num_tokens;
};

// Cuts the query tokens of all valid requests into runs of at most `max_tokens`.
std::vector<QueryRun> cut(const Batch& batch, std::span<const Defect> defects, int64_t max_tokens) {
  std::vector<QueryRun> runs;
  for (size_t request = 0; request < defects.size(); ++request) {
    if (defects[request] != Defect::kNone) continue;
    const int64_t num_queries = batch.num_queries(request);
    for (int64_t i = 0; i < num_queries; i += max_tokens) {
      runs.push_back({.request = request,
                      .first_token = batch.query_starts[request] + i,
                      .first_position = batch.context_lens[request] - num_queries + i,
                      .num_tokens = std::min(max_tokens, num_queries - i)});
    }
  }
  return runs;
}

// How many kv heads go in one block: all of a page's are read together, where there is work enough
// for every thread without cutting it there.
int64_t heads_per_block(int64_t kv_heads, int64_t rows_per_head, int64_t num_runs,
                        int64_t num_threads) {
  int64_t heads = std::clamp<int64_t>(kBlockRows / rows_per_head, 1, kv_heads);
  while (heads > 1 && num_runs * ceil_div(kv_heads, heads) < kBlocksPerThread * num_threads) {
    heads = ceil_div(heads, int64_t{2});
  }
  return heads;
}

struct AlignedDelete {
  void operator()(std::byte* memory) const {
    ::operator delete[](memory, std::align_val_t(kAttentionScratchAlignment));
  }
};

// Computes all runs for all heads into `output`.
ffi::Error attend_runs(ffi::ThreadPool& pool, AttendBlock attend, const AttentionLayer& layer,
                       const Batch& batch, std::span<const QueryRun> runs, const std::byte* query,
                       std::byte* output, int64_t group_size, int64_t element_bytes, float scale) {
  const int64_t heads = layer.num_kv_heads * group_size;
  int64_t max_tokens = 0, num_pairs = 0;  // pairs of a query and a token it may see
  for (const QueryRun& run : runs) {
    max_tokens = std::max(max_tokens, run.num_tokens);
    num_pairs += run.num_tokens * (std::min(run.first_position, batch.window) + run.num_tokens);
  }
  if (runs.empty()) return ffi::Error::Success();
  const double work = static_cast<double>(num_pairs) * static_cast<double>(heads) *
                      static_cast<double>(layer.key_dim + layer.value_dim);
  const auto num_runs = static_cast<int64_t>(runs.size());
  const int64_t num_threads = work < kSerialWork ? 1 : std::max<int64_t>(1, pool.num_threads());
  const int64_t block_heads =
      heads_per_block(layer.num_kv_heads, max_tokens * group_size, num_runs, num_threads);
  const int64_t num_cuts = ceil_div(layer.num_kv_heads, block_heads);
  const int64_t num_workers = std::min(num_threads, num_runs * num_cuts);

  const auto block_bytes = attention_scratch_bytes(layer, max_tokens * block_heads * group_size);
  if (!block_bytes) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                      error_message(kOperation, "heads are too large: ", group_size, " of ",
                                    layer.key_dim, " and ", layer.value_dim, " elements"));
  }
  constexpr size_t kAlignment = kAttentionScratchAlignment;
  const size_t worker_bytes = ceil_div(*block_bytes, kAlignment) * kAlignment;
  const std::unique_ptr<std::byte[], AlignedDelete> scratch(
      static_cast<std::byte*>(::operator new[](worker_bytes* static_cast<size_t>(num_workers),
                                               std::align_val_t(kAlignment), std::nothrow)));
  if (scratch == nullptr) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                      error_message(kOperation, "no memory for ", num_workers, " x ", worker_bytes,
                                    " bytes of scratch"));
  }

  parallel_for(pool, num_workers, num_runs * num_cuts, [&](int64_t worker, int64_t item) {
    const QueryRun& run = runs[static_cast<size_t>(item / num_cuts)];
    const int64_t kv_head = item % num_cuts * block_heads;
    const int64_t head = run.first_token * heads + kv_head * group_size;
    const AttentionBlock block{.query = query + head * layer.key_dim * element_bytes,
                               .output = output + head * layer.value_dim * element_bytes,
                               .page_ids = batch.page_ids(run.request).data(),
                               .first_position = run.first_position,
                               .num_tokens = run.num_tokens,
                               .kv_head = kv_head,
                               .num_kv_heads = std::min(block_heads, layer.num_kv_heads - kv_head),
                               .group_size = group_size,
                               .window = batch.window,
                               .scale = scale};
    std::byte* memory = scratch.get() + static_cast<size_t>(worker) * worker_bytes;
    attend(layer, block, reinterpret_cast<float*>(memory));
  });
  return ffi::Error::Success();
}

std::optional<AttentionDType> attention_dtype(ffi::DataType dtype) {
  if (dtype == ffi::F32) return AttentionDType::kFloat32;
  if (dtype == ffi::BF16) return AttentionDType::kBfloat16;
  return std::nullopt;
}

ffi::Error check_dtypes(const ffi::AnyBuffer& query, const ffi::AnyBuffer& key_pages,
                        const ffi::AnyBuffer& value_pages, const ffi::AnyBuffer& output) {
  const ffi::DataType dtype = key_pages.element_type();
  if (!attention_dtype(dtype)) {
    return invalid_argument(kOperation, "key_pages must be F32 or BF16, got ", dtype);
  }
  const auto check = [&](std::string_view name, const ffi::AnyBuffer& buffer) {
    if (buffer.element_type() == dtype) return ffi::Error::Success();
    return invalid_argument(kOperation, name, " must be ", dtype, " as key_pages, got ",
                            buffer.element_type());
  };
  if (auto error = check("value_pages", value_pages); error.failure()) return error;
  if (auto error = check("query", query); error.failure()) return error;
  return check("output", output);
}

// Fails unless `rows` is `[tokens, heads, dim]`.
ffi::Error check_rows(std::string_view name, const ffi::AnyBuffer& rows, int64_t dim) {
  if (shape(rows).size() == 1 + kRowRank && shape(rows).back() == dim) {
    return ffi::Error::Success();
  }
  return invalid_argument(kOperation, name, " must have shape [tokens, heads, ", dim, "], got ",
                          Printed{shape(rows)});
}

ffi::Error check_batch_arrays(const ffi::AnyBuffer& page_table, const ffi::AnyBuffer& query_starts,
                              const ffi::AnyBuffer& context_lens, const ffi::AnyBuffer& layer,
                              const ffi::AnyBuffer& window, const ffi::AnyBuffer& num_dropped) {
  if (auto error = check_int32(kOperation, "page_table", page_table); error.failure()) {
    return error;
  }
  if (auto error = check_int32(kOperation, "query_starts", query_starts); error.failure()) {
    return error;
  }
  if (auto error = check_int32(kOperation, "context_lens", context_lens); error.failure()) {
    return error;
  }
  if (auto error = check_int32(kOperation, "layer", layer); error.failure()) return error;
  if (!shape(layer).empty()) {
    return invalid_argument(kOperation, "layer must be a scalar, got ", Printed{shape(layer)});
  }
  if (auto error = check_like(kOperation, "sliding_window", window, "layer", layer);
      error.failure()) {
    return error;
  }
  if (shape(page_table).size() != 2) {
    return invalid_argument(kOperation, "page_table must have shape [requests, width], got ",
                            Printed{shape(page_table)});
  }
  const int64_t num_requests = shape(page_table)[0];
  const auto check = [&](std::string_view name, const ffi::AnyBuffer& buffer, int64_t size) {
    if (shape(buffer).size() == 1 && shape(buffer)[0] == size) return ffi::Error::Success();
    return invalid_argument(kOperation, name, " must have shape [", size, "] for ", num_requests,
                            " requests, got ", Printed{shape(buffer)});
  };
  if (auto error = check("query_starts", query_starts, saturating_add<int64_t>(num_requests, 1));
      error.failure()) {
    return error;
  }
  if (auto error = check("context_lens", context_lens, num_requests); error.failure()) {
    return error;
  }
  return check_like(kOperation, "num_dropped", num_dropped, "layer", layer);
}

ffi::Error paged_attention(ffi::ThreadPool pool, ffi::AnyBuffer query, ffi::AnyBuffer key_pages,
                           ffi::AnyBuffer value_pages, ffi::AnyBuffer page_table,
                           ffi::AnyBuffer query_starts, ffi::AnyBuffer context_lens,
                           ffi::AnyBuffer layer, ffi::AnyBuffer window,
                           ffi::Result<ffi::AnyBuffer> output,
                           ffi::Result<ffi::AnyBuffer> num_dropped, bool layered, float scale,
                           std::string_view mode_name, std::string_view instruction_set) {
  const auto mode = parse_mode(mode_name);
  if (!mode) return unknown_mode(kOperation, mode_name);
  const AttendBlock attend = find_attention_kernel(instruction_set);
  if (attend == nullptr) {
    return invalid_argument(kOperation, "this CPU cannot run the instruction set ",
                            instruction_set);
  }
  if (auto error =
          check_batch_arrays(page_table, query_starts, context_lens, layer, window, *num_dropped);
      error.failure()) {
    return error;
  }
  if (auto error = check_dtypes(query, key_pages, value_pages, *output); error.failure()) {
    return error;
  }
  const auto keys = pool_layout(kOperation, "key_pages", key_pages, 0, layered, kNumIdAxes);
  if (!keys) return keys.error();
  const auto values = pool_layout(kOperation, "value_pages", value_pages, 0, layered, kNumIdAxes);
  if (!values) return values.error();
  const Shape key_axes = shape(key_pages), value_axes = shape(value_pages);
  if (keys->unit.size() != kRowRank || values->unit.size() != kRowRank ||
      !std::ranges::equal(key_axes.first(key_axes.size() - 1),
                          value_axes.first(value_axes.size() - 1))) {
    return invalid_argument(kOperation,
                            "pages must have rows of [kv_heads, head_dim], and key and value "
                            "differ in head_dim alone, got ",
                            Printed{key_axes}, " and ", Printed{value_axes});
  }
  const int64_t key_dim = keys->unit[1], value_dim = values->unit[1];
  if (auto error = check_rows("query", query, key_dim); error.failure()) return error;
  if (auto error = check_rows("output", *output, value_dim); error.failure()) return error;
  const int64_t num_tokens = shape(query)[0], heads = shape(query)[1];
  const int64_t kv_heads = keys->unit[0];
  if (shape(*output)[0] != num_tokens || shape(*output)[1] != heads) {
    return invalid_argument(kOperation, "output must have the tokens and heads of query, ",
                            Printed{shape(query)}, ", got ", Printed{shape(*output)});
  }
  if (kv_heads == 0 || heads % kv_heads != 0) {
    return invalid_argument(kOperation, "query must have a multiple of the ", kv_heads,
                            " kv heads, got ", heads);
  }

  const int32_t layer_id = int32_span(layer)[0];
  // A layer that does not exist has no pages.
  const bool layer_exists = in_range(layer_id, keys->num_layers);
  const int64_t num_pages = layer_exists ? key_axes[key_axes.size() - 4] : 0;
  const int64_t page_size = key_axes[key_axes.size() - 3];
  const Batch batch{.query_starts = int32_span(query_starts),
                    .context_lens = int32_span(context_lens),
                    .page_table = int32_span(page_table),
                    .width = shape(page_table)[1],
                    .num_tokens = num_tokens,
                    .page_size = page_size,
                    .window = int32_span(window)[0],
                    .capacity = checked_mul(shape(page_table)[1], page_size).value_or(INT64_MAX)};
  const std::vector<Defect> defects = find_defects(batch);
  if (*mode == Mode::kRaise) {
    if (auto error = check_layers(kOperation, int32_span(layer), keys->num_layers);
        error.failure()) {
      return error;
    }
    if (auto error = check_batch(batch, defects, num_pages); error.failure()) return error;
  }
  *static_cast<int32_t*>(num_dropped->untyped_data()) = count_dropped(batch, defects, num_pages);

  const auto element_bytes = bits(query.element_type()) / 8;
  auto* const rows = static_cast<std::byte*>(output->untyped_data());
  if (num_elements(*output) == 0) return ffi::Error::Success();
  std::memset(rows, 0, num_elements(*output) * static_cast<size_t>(element_bytes));
  const int64_t group_size = heads / kv_heads;
  const std::vector<QueryRun> runs =
      cut(batch, defects, std::max<int64_t>(1, kBlockRows / std::max<int64_t>(1, group_size)));
  const AttentionLayer pages{.keys = static_cast<const std::byte*>(key_pages.untyped_data()) +
                                     keys->offset(0, layer_exists ? layer_id : 0),
                             .values = static_cast<const std::byte*>(value_pages.untyped_data()) +
                                       values->offset(0, layer_exists ? layer_id : 0),
                             .dtype = *attention_dtype(key_pages.element_type()),
                             .num_pages = num_pages,
                             .page_size = page_size,
                             .num_kv_heads = kv_heads,
                             .key_dim = key_dim,
                             .value_dim = value_dim};
  return attend_runs(pool, attend, pages, batch, runs,
                     static_cast<const std::byte*>(query.untyped_data()), rows, group_size,
                     element_bytes, scale);
}

}  // namespace
}  // namespace pagedkv

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvPagedAttention, pagedkv::paged_attention,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()  // query
                                  .Arg<xla::ffi::AnyBuffer>()  // key_pages
                                  .Arg<xla::ffi::AnyBuffer>()  // value_pages
                                  .Arg<xla::ffi::AnyBuffer>()  // page_table
                                  .Arg<xla::ffi::AnyBuffer>()  // query_starts
                                  .Arg<xla::ffi::AnyBuffer>()  // context_lens
                                  .Arg<xla::ffi::AnyBuffer>()  // layer
                                  .Arg<xla::ffi::AnyBuffer>()  // sliding_window
                                  .Ret<xla::ffi::AnyBuffer>()  // output
                                  .Ret<xla::ffi::AnyBuffer>()  // num_dropped
                                  .Attr<bool>("layered")       // pools start with a layer axis
                                  .Attr<float>("scale")
                                  .Attr<std::string_view>("mode")               // drop or raise
                                  .Attr<std::string_view>("instruction_set"));  // or best
