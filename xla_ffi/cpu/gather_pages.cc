#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>

#include "checks.h"
#include "handlers.h"
#include "ids.h"

namespace pagedkv {
namespace {

constexpr std::string_view kOperation = "gather_pages";
constexpr size_t kNumIdAxes = 1;

// How far ahead of the copy pages are asked for, and how much of each. The hardware prefetcher
// takes over inside a page; what it cannot know is where the next one starts.
constexpr size_t kPrefetchPages = 4;
constexpr size_t kPrefetchBytes = 1024;
constexpr size_t kCacheLineBytes = 64;

void prefetch(const std::byte* page, size_t page_bytes) {
  const size_t num_bytes = std::min(page_bytes, kPrefetchBytes);
  for (size_t i = 0; i < num_bytes; i += kCacheLineBytes) __builtin_prefetch(page + i);
}

// Copies page ids[i] of the layer to row i, zeros for an id that is out of range; returns how many
// of those there were.
int32_t gather(const std::byte* layer, int64_t num_pages, size_t page_bytes,
               std::span<const int32_t> ids, std::byte* rows) {
  int32_t num_dropped = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const size_t ahead = i + kPrefetchPages;
    if (ahead < ids.size() && in_range(ids[ahead], num_pages)) {
      prefetch(layer + static_cast<size_t>(ids[ahead]) * page_bytes, page_bytes);
    }
    std::byte* row = rows + i * page_bytes;
    if (in_range(ids[i], num_pages)) {
      std::memcpy(row, layer + static_cast<size_t>(ids[i]) * page_bytes, page_bytes);
    } else {
      std::memset(row, 0, page_bytes);
      if (ids[i] != kPadding) ++num_dropped;
    }
  }
  return num_dropped;
}

// An operand that vmap did not map has 1 where the batch has its size.
bool broadcasts_to(Shape axes, Shape batch) {
  return axes.size() == batch.size() &&
         std::ranges::equal(axes, batch, [](int64_t a, int64_t b) { return a == 1 || a == b; });
}

// Which of its batch elements an operand contributes to element `index` of the whole batch.
size_t broadcast_index(size_t index, Shape batch, Shape axes) {
  size_t result = 0;
  size_t stride = 1;
  for (size_t axis = batch.size(); axis-- > 0;) {
    const auto size = static_cast<size_t>(batch[axis]);
    if (axes[axis] != 1) result += index % size * stride;
    stride *= static_cast<size_t>(axes[axis]);
    index /= size;
  }
  return result;
}

ffi::Error check_batch(std::string_view name, Shape axes, Shape batch) {
  if (axes.size() >= batch.size() && broadcasts_to(axes.first(batch.size()), batch)) {
    return ffi::Error::Success();
  }
  return invalid_argument(kOperation, name, " must have batch axes that broadcast to the ",
                          Printed{batch}, " of num_dropped, got ", Printed{axes});
}

ffi::Error gather_pages(ffi::AnyBuffer pages, ffi::AnyBuffer page_ids, ffi::AnyBuffer layer,
                        ffi::Result<ffi::AnyBuffer> rows, ffi::Result<ffi::AnyBuffer> num_dropped,
                        bool layered, std::string_view mode_name) {
  const auto mode = parse_mode(mode_name);
  if (!mode) return unknown_mode(kOperation, mode_name);
  if (auto error = check_int32(kOperation, "page_ids", page_ids); error.failure()) return error;
  if (auto error = check_int32(kOperation, "layer", layer); error.failure()) return error;
  if (auto error = check_int32(kOperation, "num_dropped", *num_dropped); error.failure()) {
    return error;
  }
  const Shape batch = shape(*num_dropped);
  const auto layout = pool_layout(kOperation, "pages", pages, batch.size(), layered, kNumIdAxes);
  if (!layout) return layout.error();
  if (auto error = check_batch("pages", shape(pages), batch); error.failure()) return error;
  if (auto error = check_batch("page_ids", shape(page_ids), batch); error.failure()) return error;
  if (!broadcasts_to(shape(layer), batch)) {
    return invalid_argument(kOperation, "layer must broadcast to the shape ", Printed{batch},
                            " of num_dropped, got ", Printed{shape(layer)});
  }
  if (rows->element_type() != pages.element_type()) {
    return invalid_argument(kOperation, "rows must be ", pages.element_type(), " as pages, got ",
                            rows->element_type());
  }
  const Shape id_axes = shape(page_ids).subspan(batch.size());
  const Shape row_axes = shape(*rows);
  if (row_axes.size() < batch.size() || !std::ranges::equal(row_axes.first(batch.size()), batch) ||
      !is_concatenation(row_axes.subspan(batch.size()), id_axes, layout->unit)) {
    return invalid_argument(kOperation, "rows must have the axes ", Printed{batch},
                            " of num_dropped, ", Printed{id_axes}, " of page_ids and the page ",
                            Printed{layout->unit}, ", got ", Printed{row_axes});
  }

  const std::span<const int32_t> ids = int32_span(page_ids);
  const std::span<const int32_t> layers = int32_span(layer);
  if (*mode == Mode::kRaise) {
    if (auto error = check_layers(kOperation, layers, layout->num_layers); error.failure()) {
      return error;
    }
    if (auto error = check_ids(kOperation, "page", ids, layout->num_units); error.failure()) {
      return error;
    }
  }

  const auto num_batches = num_dropped->element_count();
  const auto page_bytes = static_cast<size_t>(layout->unit_bytes);
  const auto num_ids = static_cast<size_t>(num_elements(id_axes).value_or(0));
  for (size_t index = 0; index < num_batches; ++index) {
    const int32_t wanted = layers[broadcast_index(index, batch, shape(layer))];
    // A layer that does not exist has no pages.
    const bool layer_exists = in_range(wanted, layout->num_layers);
    const size_t pool_index = broadcast_index(index, batch, layout->batch);
    const size_t ids_index = broadcast_index(index, batch, shape(page_ids).first(batch.size()));
    static_cast<int32_t*>(num_dropped->untyped_data())[index] = gather(
        static_cast<const std::byte*>(pages.untyped_data()) +
            layout->offset(static_cast<int64_t>(pool_index), layer_exists ? wanted : 0),
        layer_exists ? layout->num_units : 0, page_bytes, ids.subspan(ids_index * num_ids, num_ids),
        static_cast<std::byte*>(rows->untyped_data()) + index * num_ids * page_bytes);
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace pagedkv

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvGatherPages, pagedkv::gather_pages,
                              xla::ffi::Ffi::Bind()
                                  .Arg<xla::ffi::AnyBuffer>()  // pages
                                  .Arg<xla::ffi::AnyBuffer>()  // page_ids
                                  .Arg<xla::ffi::AnyBuffer>()  // layer
                                  .Ret<xla::ffi::AnyBuffer>()  // rows
                                  .Ret<xla::ffi::AnyBuffer>()  // num_dropped
                                  .Attr<bool>("layered")       // pages start with a layer axis
                                  .Attr<std::string_view>("mode"));  // drop or raise
