#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string_view>

#include "attention_batch.h"
#include "attention_kernel.h"
#include "attention_operands.h"
#include "attention_schedule.h"
#include "broadcast.h"
#include "handlers.h"
#include "ids.h"
#include "inline_vector.h"
#include "operands.h"
#include "parallel_for.h"

namespace pagedkv {
namespace {

constexpr std::string_view kOperation = "paged_attention";
// Multiplications below which waking another thread costs more than it gives.
constexpr double kSerialWork = 1 << 20;
// Bytes of states that are kept to be merged; beyond it a context is not cut for threads.
constexpr int64_t kStateBytes = int64_t{64} << 20;
constexpr size_t kAlignment = 64;

struct AlignedDelete {
  void operator()(float* memory) const { ::operator delete[](memory, std::align_val_t(kAlignment)); }
};
using Floats = std::unique_ptr<float[], AlignedDelete>;

// Null if there is no memory.
Floats make_floats(int64_t num_floats) {
  const auto limit = static_cast<int64_t>(PTRDIFF_MAX / sizeof(float));
  if (num_floats > limit) return nullptr;
  return Floats(static_cast<float*>(
      ::operator new[](static_cast<size_t>(num_floats) * sizeof(float), std::align_val_t(kAlignment),
                       std::nothrow)));
}

// One element of the batch: a step over one layer.
struct Step {
  const AttentionKernel& kernel;
  const AttentionLayer& layer;
  const AttentionBatch& batch;
  const AttentionSchedule& schedule;
  const std::byte* query;
  std::byte* output;
  float* states;  // of pieces that are not whole blocks

  int64_t state_size() const {
    return padded_row(AttentionState::size(schedule.num_rows, layer.values.dim));
  }
  AttentionState state(int64_t i) const {
    return {schedule.num_rows, layer.values.dim, states + i * state_size()};
  }
  int64_t scratch_size() const {
    return padded_row(AttentionScratch::size(schedule.num_rows, schedule.rows_per_head,
                                             layer.keys.dim, layer.values.dim));
  }

  AttentionBlock block(const QueryRun& run, int64_t kv_head, int64_t num_kv_heads) const {
    const int64_t head = run.first_token * layer.num_heads() + kv_head * layer.group_size;
    const int64_t bytes = float_bytes(layer.query_type);
    return {.query = query + head * layer.keys.dim * bytes,
            .output = output + head * layer.values.dim * bytes,
            .page_ids = batch.page_ids(run.request).data(),
            .first_position = run.first_position,
            .num_tokens = run.num_tokens,
            .kv_head = kv_head,
            .num_kv_heads = num_kv_heads};
  }

  // `memory` has the worker's scratch, and then two states.
  void attend(const AttentionPiece& piece, float* memory) const {
    const AttentionBlock own = block(*piece.run, piece.kv_head, piece.num_kv_heads);
    const AttentionScratch scratch(schedule.num_rows, schedule.rows_per_head, layer.keys.dim,
                                   layer.values.dim, memory);
    kernel.load_queries(layer, own, scratch);
    if (piece.first_state >= 0) {
      for (size_t i = 0; i < piece.parts.size(); ++i) {
        kernel.attend(layer, own, piece.parts[i], scratch,
                      state(piece.first_state + static_cast<int64_t>(i)));
      }
      return;
    }
    float* own_states = memory + scratch_size();
    const AttentionState whole(schedule.num_rows, layer.values.dim, own_states);
    const AttentionState later(schedule.num_rows, layer.values.dim, own_states + state_size());
    for (size_t i = 0; i < piece.parts.size(); ++i) {
      kernel.attend(layer, own, piece.parts[i], scratch, i == 0 ? whole : later);
      if (i > 0) kernel.merge(whole, later, num_rows(own));
    }
    kernel.finish(layer, own, whole);
  }

  void join(const AttentionJoin& pieces) const {
    const AttentionBlock own = block(*pieces.run, pieces.kv_head, pieces.num_kv_heads);
    const AttentionState whole = state(pieces.first_state);
    for (int64_t i = 1; i < pieces.num_states; ++i) {
      kernel.merge(whole, state(pieces.first_state + i), num_rows(own));
    }
    kernel.finish(layer, own, whole);
  }

  int64_t num_rows(const AttentionBlock& own) const {
    return own.num_tokens * own.num_kv_heads * layer.group_size;
  }
};

ffi::Error no_memory(const AttentionLayer& layer) {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                    error_message(kOperation, "no memory for groups of ", layer.group_size,
                                  " heads of ", layer.keys.dim, " and ", layer.values.dim,
                                  " elements"));
}

// Computes all valid requests of one element of the batch. `output` is zeros.
ffi::Error attend(ffi::ThreadPool& pool, const AttentionKernel& kernel,
                  const AttentionLayer& layer, const AttentionBatch& batch,
                  std::span<const RequestDefect> defects, const std::byte* query,
                  std::byte* output) {
  const auto all_threads = std::max<int64_t>(1, pool.num_threads());
  const int64_t row_floats = padded_row(layer.values.dim) + kRowAlignment;
  const int64_t state_limit = kStateBytes / static_cast<int64_t>(sizeof(float)) / row_floats;
  AttentionSchedule schedule = schedule_attention(batch, defects, layer, all_threads, state_limit);
  if (schedule.runs.empty()) return ffi::Error::Success();
  if (schedule.work < kSerialWork && !schedule.joins.empty()) {
    schedule = schedule_attention(batch, defects, layer, 1, 0);
  }
  const int64_t num_workers =
      schedule.work < kSerialWork
          ? 1
          : std::min(all_threads, static_cast<int64_t>(schedule.pieces.size()));
  constexpr int64_t kLimit = int64_t{1} << 28;  // of each factor: no product below overflows
  if (schedule.num_rows > kLimit || layer.keys.dim > kLimit || layer.values.dim > kLimit) {
    return no_memory(layer);
  }
  Step step{.kernel = kernel,
            .layer = layer,
            .batch = batch,
            .schedule = schedule,
            .query = query,
            .output = output,
            .states = nullptr};
  const int64_t worker_size = step.scratch_size() + 2 * step.state_size();
  const Floats memory = make_floats(num_workers * worker_size);
  const Floats states = make_floats(schedule.num_states * step.state_size());
  if (memory == nullptr || states == nullptr) return no_memory(layer);
  step.states = states.get();

  parallel_for(pool, num_workers, static_cast<int64_t>(schedule.pieces.size()),
               [&](int64_t worker, int64_t i) {
                 step.attend(schedule.pieces[static_cast<size_t>(i)],
                             memory.get() + worker * worker_size);
               });
  parallel_for(pool, num_workers, static_cast<int64_t>(schedule.joins.size()),
               [&](int64_t, int64_t i) { step.join(schedule.joins[static_cast<size_t>(i)]); });
  return ffi::Error::Success();
}

// The element of a batch that an operand contributes to element `index` of the whole, in bytes.
template <typename T>
const T* element(const ffi::AnyBuffer& buffer, size_t index, Shape batch) {
  const Shape axes = shape(buffer);
  const size_t own = broadcast_index(index, batch, axes.first(batch.size()));
  const auto size = num_elements(axes.subspan(batch.size())).value_or(0);
  const int64_t width = bits(buffer.element_type()) / 8;
  return reinterpret_cast<const T*>(static_cast<const std::byte*>(buffer.untyped_data()) +
                                    static_cast<int64_t>(own) * size * width);
}

std::span<const int32_t> ints(const ffi::AnyBuffer& buffer, size_t index, Shape batch) {
  const auto size = num_elements(shape(buffer).subspan(batch.size())).value_or(0);
  return {element<int32_t>(buffer, index, batch), static_cast<size_t>(size)};
}

// The layer of element `index` of the batch. One that does not exist has no pages.
AttentionLayer layer_of(const AttentionOperands& operands, const CheckedAttention& checked,
                        const KvLayout& layout, size_t index) {
  const Shape batch = shape(operands.num_dropped);
  const int32_t id = *element<int32_t>(operands.layer, index, batch);
  AttentionLayer layer = checked.layer;
  const bool exists = in_range(id, checked.pools[0].num_layers);
  if (!exists) layer.num_pages = 0;
  for (const size_t stream : {size_t{0}, size_t{1}}) {
    PagedRows& rows = stream == 0 ? layer.keys : layer.values;
    const size_t i = layout.pool_of(stream);
    const auto offset = [&](const auto& geometry) {
      const auto own = static_cast<int64_t>(broadcast_index(index, batch, geometry.batch));
      return geometry.layer_offset(own, exists ? id : 0);
    };
    rows.data = static_cast<const std::byte*>(operands.pools[i].untyped_data()) +
                offset(checked.pools[stream]) + checked.first[stream];
    if (operands.scales.empty()) continue;
    // In a latent layout the value's scale is the key's.
    const size_t of_scales = layer.values_are_keys ? 0 : stream;
    const ScaleGeometry& scales = checked.scales[stream];
    rows.scales = static_cast<const float*>(operands.scales[i].untyped_data()) + offset(scales) +
                  scales.first[of_scales];
  }
  layer.mask = {.window = *element<int32_t>(operands.window, index, batch),
                .chunk = *element<int32_t>(operands.chunk, index, batch),
                .num_sink_tokens = *element<int32_t>(operands.num_sink_tokens, index, batch)};
  if (shape(operands.sinks).back() != 0) layer.sinks = element<float>(operands.sinks, index, batch);
  return layer;
}

AttentionBatch batch_of(const AttentionOperands& operands, const CheckedAttention& checked,
                        const AttentionLayer& layer, size_t index) {
  const Shape batch = shape(operands.num_dropped);
  return {.query_starts = ints(operands.query_starts, index, batch),
          .context_lens = ints(operands.context_lens, index, batch),
          .page_table = ints(operands.page_table, index, batch),
          .width = checked.width,
          .num_tokens = checked.num_tokens,
          .num_pages = layer.num_pages,
          .page_size = layer.page_size,
          .mask = layer.mask};
}

struct Options {
  const KvLayout& layout;
  const AttentionKernel& kernel;
  Mode mode;
  float scale;
  float soft_cap;
};

// In mode "raise" nothing is written before all elements of the batch are checked.
ffi::Error check_values(const AttentionOperands& operands, const CheckedAttention& checked,
                        const KvLayout& layout) {
  if (auto error =
          check_layers(kOperation, int32_span(operands.layer), checked.pools[0].num_layers);
      error.failure()) {
    return error;
  }
  for (size_t i = 0; i < num_elements(operands.num_dropped); ++i) {
    const AttentionBatch requests =
        batch_of(operands, checked, layer_of(operands, checked, layout, i), i);
    if (auto error = check_requests(kOperation, requests, find_defects(requests));
        error.failure()) {
      return error;
    }
  }
  return ffi::Error::Success();
}

ffi::Error attend_all(ffi::ThreadPool& pool, const AttentionOperands& operands,
                      const CheckedAttention& checked, const Options& options) {
  if (options.mode == Mode::kRaise) {
    if (auto error = check_values(operands, checked, options.layout); error.failure()) return error;
  }
  const Shape batch = shape(operands.num_dropped);
  const int64_t bytes = float_bytes(checked.layer.query_type);
  const size_t num_values = num_elements(operands.output);
  auto* const output = static_cast<std::byte*>(operands.output.untyped_data());
  if (num_values != 0) std::memset(output, 0, num_values * static_cast<size_t>(bytes));
  for (size_t i = 0; i < num_elements(operands.num_dropped); ++i) {
    AttentionLayer layer = layer_of(operands, checked, options.layout, i);
    layer.scale = options.scale;
    layer.soft_cap = options.soft_cap;
    const AttentionBatch requests = batch_of(operands, checked, layer, i);
    const std::vector<RequestDefect> defects = find_defects(requests);
    static_cast<int32_t*>(operands.num_dropped.untyped_data())[i] =
        count_dropped(requests, defects);
    if (num_values == 0 || layer.num_pages == 0) continue;
    const auto of_one = num_elements(shape(operands.output).subspan(batch.size())).value_or(0);
    if (auto error = attend(pool, options.kernel, layer, requests, defects,
                            element<std::byte>(operands.query, i, batch),
                            output + static_cast<int64_t>(i) * of_one * bytes);
        error.failure()) {
      return error;
    }
  }
  return ffi::Error::Success();
}

ffi::Error paged_attention(ffi::ThreadPool pool, ffi::AnyBuffer query, ffi::AnyBuffer page_table,
                           ffi::AnyBuffer query_starts, ffi::AnyBuffer context_lens,
                           ffi::AnyBuffer layer, ffi::AnyBuffer window, ffi::AnyBuffer chunk,
                           ffi::AnyBuffer num_sink_tokens, ffi::AnyBuffer sinks,
                           ffi::RemainingArgs pools_and_scales, ffi::Result<ffi::AnyBuffer> output,
                           ffi::Result<ffi::AnyBuffer> num_dropped, std::string_view layout_name,
                           bool layered, int64_t group_size, float scale, float soft_cap,
                           std::string_view mode_name, std::string_view instruction_set) {
  const auto mode = parse_mode(mode_name);
  if (!mode) return unknown_mode(kOperation, mode_name);
  const KvLayout* layout = find_layout(layout_name);
  if (layout == nullptr) return invalid_argument(kOperation, "no layout ", layout_name);
  const AttentionKernel* kernel = find_attention_kernel(instruction_set);
  if (kernel == nullptr) {
    return invalid_argument(kOperation, "this CPU cannot run the instruction set ",
                            instruction_set);
  }
  const size_t num_pools = layout->num_pools();
  const bool is_quantized = pools_and_scales.size() == 2 * num_pools;
  InlineVector<ffi::AnyBuffer, 4> arrays;
  if (auto error = read_operands(kOperation, pools_and_scales,
                                 is_quantized ? 2 * num_pools : num_pools, arrays);
      error.failure()) {
    return error;
  }
  const AttentionOperands operands{.query = query,
                                   .page_table = page_table,
                                   .query_starts = query_starts,
                                   .context_lens = context_lens,
                                   .layer = layer,
                                   .window = window,
                                   .chunk = chunk,
                                   .num_sink_tokens = num_sink_tokens,
                                   .sinks = sinks,
                                   .pools = arrays.span().first(num_pools),
                                   .scales = arrays.span().subspan(num_pools),
                                   .output = *output,
                                   .num_dropped = *num_dropped};
  const auto checked = check_attention(kOperation, operands, *layout, layered, group_size);
  if (!checked) return checked.error();
  return attend_all(pool, operands, *checked,
                    {.layout = *layout,
                     .kernel = *kernel,
                     .mode = *mode,
                     .scale = scale,
                     .soft_cap = soft_cap});
}

}  // namespace
}  // namespace pagedkv

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvPagedAttention, pagedkv::paged_attention,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()  // query
                                  .Arg<xla::ffi::AnyBuffer>()  // page_table
                                  .Arg<xla::ffi::AnyBuffer>()  // query_starts
                                  .Arg<xla::ffi::AnyBuffer>()  // context_lens
                                  .Arg<xla::ffi::AnyBuffer>()  // layer
                                  .Arg<xla::ffi::AnyBuffer>()  // sliding_window
                                  .Arg<xla::ffi::AnyBuffer>()  // attention_chunk_size
                                  .Arg<xla::ffi::AnyBuffer>()  // num_sink_tokens
                                  .Arg<xla::ffi::AnyBuffer>()  // sinks, [heads] or [0]
                                  .RemainingArgs()             // pools, then their scales
                                  .Ret<xla::ffi::AnyBuffer>()  // output
                                  .Ret<xla::ffi::AnyBuffer>()  // num_dropped
                                  .Attr<std::string_view>("layout")
                                  .Attr<bool>("layered")        // pools start with a layer axis
                                  .Attr<int64_t>("group_size")  // query heads of a kv head
                                  .Attr<float>("scale")
                                  .Attr<float>("soft_cap")                      // 0 for none
                                  .Attr<std::string_view>("mode")               // drop or raise
                                  .Attr<std::string_view>("instruction_set"));  // or best
