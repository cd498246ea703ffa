#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "broadcast.h"
#include "checks.h"
#include "copy_parts.h"
#include "handlers.h"
#include "ids.h"
#include "kv_layout.h"
#include "parallel_for.h"
#include "quantize_kernels.h"
#include "quantized_checks.h"

namespace pagedkv {
namespace {

constexpr std::string_view kOperation = "gather_pages";

// Some codes of a page that share a scale and lie back to back, in the pool and in the result.
struct Run {
  int64_t codes;  // byte, from the page's first
  int64_t scale;  // index, from the page's first
};

// The runs of a page in the order of the result: the axes of a page but that of a head's elements.
// In the transposed layout tokens are last; a run is one element then, which is slow and right.
std::vector<Run> page_runs(const KvLayout& layout, Shape pool_axes,
                           const CheckedDequantize& checked) {
  const PoolGeometry& pool = checked.pool;
  const ScaleGeometry& scales = checked.scales;
  const bool transposed = checked.is_transposed;
  const int64_t halves = layout.sharing == Sharing::kSideBySide ? 2 : 1;
  std::vector<int64_t> strides(layout.rank);  // in elements
  int64_t stride = 1;
  for (size_t axis = layout.rank; axis-- > 0; stride *= pool_axes[axis]) strides[axis] = stride;

  // Interleaved heads count keys and values together here, as the scales lie.
  const int64_t head_stride =
      layout.sharing == Sharing::kInterleaved ? scales.head_stride / 2 : scales.head_stride;
  std::vector<Run> runs;
  std::vector<int64_t> index(layout.rank, 0);
  const auto last_of = [&](size_t axis) -> int64_t {
    const AxisRole role = layout.roles[axis];
    if (role == AxisRole::kPages || (role == AxisRole::kDim && !transposed)) return 1;
    return pool_axes[axis];
  };
  for (size_t axis = 0; axis < layout.rank; ++axis) {
    if (last_of(axis) == 0) return runs;
  }
  while (true) {
    int64_t element = 0, token = 0, head = 0;
    for (size_t axis = 0; axis < layout.rank; ++axis) {
      element += index[axis] * strides[axis];
      if (layout.roles[axis] == AxisRole::kTokens) token = token * pool_axes[axis] + index[axis];
      if (layout.roles[axis] == AxisRole::kHeads) head = head * pool_axes[axis] + index[axis];
    }
    for (int64_t half = 0; half < halves; ++half) {
      runs.push_back({.codes = (element + half * checked.run_size) * pool.element_bits / 8,
                      .scale = scales.first[static_cast<size_t>(half)] * (halves - 1) +
                               token * scales.token_stride + head * head_stride});
    }
    size_t axis = layout.rank;
    while (axis-- > 0) {
      if (++index[axis] < last_of(axis)) break;
      index[axis] = 0;
      if (axis == 0) return runs;
    }
  }
}

ffi::Error gather_dequantized(ffi::ThreadPool threads, ffi::AnyBuffer pages, ffi::AnyBuffer scales,
                              ffi::AnyBuffer page_ids, ffi::AnyBuffer layer,
                              ffi::Result<ffi::AnyBuffer> rows,
                              ffi::Result<ffi::AnyBuffer> num_dropped, std::string_view layout_name,
                              bool layered, std::string_view mode_name) {
  const auto mode = parse_mode(mode_name);
  if (!mode) return unknown_mode(kOperation, mode_name);
  const KvLayout* layout = find_layout(layout_name);
  if (layout == nullptr) return invalid_argument(kOperation, "no layout ", layout_name);
  const auto checked = check_gather_dequantized(kOperation, pages, scales, page_ids, layer, *rows,
                                                *num_dropped, *layout, layered);
  if (!checked) return checked.error();
  const Shape batch = checked->batch;
  const PoolGeometry& pool = checked->pool;
  const ScaleGeometry& scale = checked->scales;
  const PageView& view = checked->view;
  const std::span<const int32_t> ids = int32_span(page_ids), layers = int32_span(layer);
  if (*mode == Mode::kRaise) {
    if (auto error = check_layers(kOperation, layers, view.num_layers); error.failure()) {
      return error;
    }
    if (auto error = check_ids(kOperation, "page", ids, view.num_pages); error.failure()) {
      return error;
    }
  }
  const int64_t run_size = checked->run_size;
  // Rows bound what a page has. Without any, its axes may be of any size.
  const std::vector<Run> runs = num_elements(*rows) == 0
                                    ? std::vector<Run>()
                                    : page_runs(*layout, shape(pages).last(layout->rank), *checked);

  const QuantizeKernels& kernels = quantize_kernels();
  const int64_t row_run_bytes = run_size * float_bytes(checked->float_type);
  const auto page_bytes = static_cast<int64_t>(runs.size()) * row_run_bytes;
  const int64_t page_stride = pool.stride(AxisRole::kPages) * pool.element_bits / 8;
  const size_t num_ids = checked->num_ids;
  for (size_t index = 0; index < checked->num_batches; ++index) {
    const int32_t wanted = layers[broadcast_index(index, batch, shape(layer))];
    // A layer that does not exist has no pages.
    const bool layer_exists = in_range(wanted, view.num_layers);
    const int64_t num_pages = layer_exists ? view.num_pages : 0;
    const auto pool_index = static_cast<int64_t>(broadcast_index(index, batch, view.batch));
    const auto wanted_ids =
        ids.subspan(broadcast_index(index, batch, checked->ids_batch) * num_ids, num_ids);
    const std::byte* const codes = static_cast<const std::byte*>(pages.untyped_data()) +
                                   pool.layer_offset(pool_index, layer_exists ? wanted : 0);
    const float* const factors =
        static_cast<const float*>(scales.untyped_data()) +
        scale.layer_offset(static_cast<int64_t>(broadcast_index(index, batch, scale.batch)),
                           layer_exists ? wanted : 0);
    std::byte* const target = static_cast<std::byte*>(rows->untyped_data()) +
                              static_cast<int64_t>(index * num_ids) * page_bytes;
    const auto read_page = [&](int64_t, int64_t i) {
      std::byte* row = target + i * page_bytes;
      const int32_t id = wanted_ids[static_cast<size_t>(i)];
      if (!in_range(id, num_pages)) {
        std::memset(row, 0, static_cast<size_t>(page_bytes));
        return;
      }
      const std::byte* const page = codes + id * page_stride;
      const float* const page_factors = factors + id * scale.page_stride;
      for (const Run& run : runs) {
        kernels.dequantize(checked->code_type, checked->float_type, page + run.codes, run_size,
                           page_factors[run.scale], row);
        row += row_run_bytes;
      }
    };
    const int64_t num_rows = page_bytes == 0 ? 0 : static_cast<int64_t>(num_ids);
    parallel_for(threads, num_copy_workers(threads, num_rows * page_bytes), num_rows, read_page);
    static_cast<int32_t*>(num_dropped->untyped_data())[index] =
        count_dropped(wanted_ids, num_pages);
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace pagedkv

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvGatherDequantized, pagedkv::gather_dequantized,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()  // pages
                                  .Arg<xla::ffi::AnyBuffer>()  // scales
                                  .Arg<xla::ffi::AnyBuffer>()  // page_ids
                                  .Arg<xla::ffi::AnyBuffer>()  // layer
                                  .Ret<xla::ffi::AnyBuffer>()  // rows
                                  .Ret<xla::ffi::AnyBuffer>()  // num_dropped
                                  .Attr<std::string_view>("layout")
                                  .Attr<bool>("layered")             // a layer axis comes first
                                  .Attr<std::string_view>("mode"));  // drop or raise
