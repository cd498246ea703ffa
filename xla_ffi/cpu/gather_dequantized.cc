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
#include "page_view.h"
#include "parallel_for.h"
#include "quantize_kernels.h"
#include "scale_layout.h"

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
std::vector<Run> page_runs(const KvLayout& layout, Shape pool_axes, const PoolGeometry& pool,
                           const ScaleGeometry& scales, int64_t* run_size) {
  const bool transposed = layout.roles[layout.rank - 1] != AxisRole::kDim;
  const int64_t halves = layout.sharing == Sharing::kSideBySide ? 2 : 1;
  *run_size = transposed ? 1 : pool.size(AxisRole::kDim) / halves;
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
      runs.push_back({.codes = (element + half * *run_size) * pool.element_bits / 8,
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
  if (auto error = check_gather_ids(kOperation, page_ids, layer, *num_dropped); error.failure()) {
    return error;
  }
  const Shape batch = shape(*num_dropped);
  const auto pool = pool_geometry(kOperation, "pages", pages, *layout, batch.size(), layered);
  if (!pool) return pool.error();
  const auto scale =
      scale_geometry(kOperation, "scales", scales, pages, *layout, batch.size(), layered);
  if (!scale) return scale.error();
  const auto page_axis = std::ranges::find(layout->roles, AxisRole::kPages) - layout->roles.begin();
  const auto view = page_view(kOperation, "pages", pages, batch.size(), layered, page_axis);
  if (!view) return view.error();
  if (auto error = check_batch(kOperation, "pages", shape(pages), batch); error.failure()) {
    return error;
  }
  if (auto error = check_batch(kOperation, "scales", shape(scales), batch); error.failure()) {
    return error;
  }
  const auto code = code_type(pages.element_type());
  const auto floats = float_type(rows->element_type());
  if (!code || !floats) {
    return invalid_argument(kOperation,
                            "rows must be F32, F16 or BF16 and pages S8, S4, F8E4M3FN "
                            "or F8E5M2, got ",
                            rows->element_type(), " and ", pages.element_type());
  }
  const Shape id_axes = shape(page_ids).subspan(batch.size());
  if (shape(*rows).size() < batch.size() ||
      !std::ranges::equal(shape(*rows).first(batch.size()), batch) ||
      !is_concatenation(shape(*rows).subspan(batch.size()), id_axes, view->page_axes)) {
    return invalid_argument(kOperation, "rows must have the axes ", Printed{batch},
                            " of num_dropped, ", Printed{id_axes}, " of page_ids and the page ",
                            Printed{view->page_axes}, ", got ", Printed{shape(*rows)});
  }
  const std::span<const int32_t> ids = int32_span(page_ids), layers = int32_span(layer);
  if (*mode == Mode::kRaise) {
    if (auto error = check_layers(kOperation, layers, view->num_layers); error.failure()) {
      return error;
    }
    if (auto error = check_ids(kOperation, "page", ids, view->num_pages); error.failure()) {
      return error;
    }
  }
  int64_t run_size = 0;
  // Rows bound what a page has. Without any, its axes may be of any size.
  const std::vector<Run> runs =
      num_elements(*rows) == 0
          ? std::vector<Run>()
          : page_runs(*layout, shape(pages).last(layout->rank), *pool, *scale, &run_size);
  if (run_size * pool->element_bits % 8 != 0) {
    return invalid_argument(kOperation, "rows of ", run_size, " elements of ", pool->element_bits,
                            " bits are not whole bytes in layout ", layout->name);
  }

  const QuantizeKernels& kernels = quantize_kernels();
  const int64_t row_run_bytes = run_size * float_bytes(*floats);
  const auto page_bytes = static_cast<int64_t>(runs.size()) * row_run_bytes;
  const int64_t page_stride = pool->stride(AxisRole::kPages) * pool->element_bits / 8;
  const auto num_ids = static_cast<size_t>(num_elements(id_axes).value_or(0));
  for (size_t index = 0; index < num_elements(*num_dropped); ++index) {
    const int32_t wanted = layers[broadcast_index(index, batch, shape(layer))];
    // A layer that does not exist has no pages.
    const bool layer_exists = in_range(wanted, view->num_layers);
    const int64_t num_pages = layer_exists ? view->num_pages : 0;
    const auto pool_index = static_cast<int64_t>(broadcast_index(index, batch, view->batch));
    const auto wanted_ids = ids.subspan(
        broadcast_index(index, batch, shape(page_ids).first(batch.size())) * num_ids, num_ids);
    const std::byte* const codes = static_cast<const std::byte*>(pages.untyped_data()) +
                                   pool->layer_offset(pool_index, layer_exists ? wanted : 0);
    const float* const factors =
        static_cast<const float*>(scales.untyped_data()) +
        scale->layer_offset(static_cast<int64_t>(broadcast_index(index, batch, scale->batch)),
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
      const float* const page_factors = factors + id * scale->page_stride;
      for (const Run& run : runs) {
        kernels.dequantize(*code, *floats, page + run.codes, run_size, page_factors[run.scale],
                           row);
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
