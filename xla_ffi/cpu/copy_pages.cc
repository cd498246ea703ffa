#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string_view>
#include <vector>

#include "checks.h"
#include "handlers.h"
#include "ids.h"
#include "operands.h"
#include "page_copies.h"
#include "page_view.h"

namespace pagedkv {
namespace {

constexpr std::string_view kOperation = "copy_pages";

// The pairs to copy, in order. A pair with padding in it is none; one with an id out of range is
// dropped.
struct Pairs {
  std::vector<int32_t> sources;
  std::vector<int32_t> targets;
  int32_t num_dropped = 0;
  bool overlap = false;  // a page is both source and target
};

Pairs read_pairs(std::span<const int32_t> sources, std::span<const int32_t> targets,
                 int64_t num_pages) {
  Pairs pairs;
  for (size_t i = 0; i < sources.size(); ++i) {
    const int32_t source = sources[i], target = targets[i];
    if (source == kPadding || target == kPadding) continue;
    if (!in_range(source, num_pages) || !in_range(target, num_pages)) {
      ++pairs.num_dropped;
    } else {
      pairs.sources.push_back(source);
      pairs.targets.push_back(target);
    }
  }
  std::vector<int32_t> sorted = pairs.sources;
  std::ranges::sort(sorted);
  pairs.overlap = std::ranges::any_of(
      pairs.targets, [&](int32_t id) { return std::ranges::binary_search(sorted, id); });
  return pairs;
}

ffi::Error copy(ffi::ThreadPool& threads, const PageView& view, std::byte* pool,
                const Pairs& pairs) {
  if (!pairs.overlap) {
    scatter_rows(
        threads, view, pool, view.num_pages, pairs.targets, [&](size_t row, int64_t outer) {
          return pool + outer * view.outer_stride() + int64_t{pairs.sources[row]} * view.run_bytes;
        });
    return ffi::Error::Success();
  }
  // All sources are read before a target is written.
  const auto num_bytes = pairs.sources.size() * static_cast<size_t>(view.page_bytes());
  const std::unique_ptr<std::byte[]> rows(new (std::nothrow) std::byte[num_bytes]);
  if (rows == nullptr) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                      error_message(kOperation, "no memory for ", num_bytes,
                                    " bytes of pages that are both source and target"));
  }
  gather_rows(threads, view, pool, view.num_pages, pairs.sources, rows.get());
  scatter_rows(threads, view, pool, view.num_pages, pairs.targets, [&](size_t row, int64_t outer) {
    return rows.get() + static_cast<int64_t>(row) * view.page_bytes() + outer * view.run_bytes;
  });
  return ffi::Error::Success();
}

ffi::Error copy_pages(ffi::ThreadPool threads, ffi::AnyBuffer source_ids, ffi::AnyBuffer target_ids,
                      ffi::RemainingArgs pools, ffi::Result<ffi::AnyBuffer> num_dropped,
                      ffi::RemainingRets new_pools, int64_t page_axis, std::string_view mode_name) {
  const auto mode = parse_mode(mode_name);
  if (!mode) return unknown_mode(kOperation, mode_name);
  if (auto error = check_int32(kOperation, "source_ids", source_ids); error.failure()) return error;
  if (auto error = check_like(kOperation, "target_ids", target_ids, "source_ids", source_ids);
      error.failure()) {
    return error;
  }
  if (auto error = check_int32(kOperation, "num_dropped", *num_dropped); error.failure()) {
    return error;
  }
  const Shape batch = shape(*num_dropped);
  const Shape id_axes = shape(source_ids);
  if (id_axes.empty() || !is_concatenation(id_axes, batch, id_axes.last(1))) {
    return invalid_argument(kOperation, "source_ids must have the axes ", Printed{batch},
                            " of num_dropped and then one for pairs, got ", Printed{id_axes});
  }
  std::vector<ffi::AnyBuffer> operands, results;
  if (auto error = read_operands(kOperation, pools, pools.size(), operands); error.failure()) {
    return error;
  }
  if (auto error = read_results(kOperation, new_pools, pools.size(), results); error.failure()) {
    return error;
  }
  const std::span<const int32_t> sources = int32_span(source_ids), targets = int32_span(target_ids);
  std::vector<PageView> views;
  for (size_t i = 0; i < operands.size(); ++i) {
    const auto view = page_view(kOperation, "a pool", operands[i], batch.size(), false, page_axis);
    if (!view) return view.error();
    if (!std::ranges::equal(view->batch, batch)) {
      return invalid_argument(kOperation, "a pool must have the batch axes ", Printed{batch},
                              ", got ", Printed{shape(operands[i])});
    }
    if (!views.empty() && view->num_pages != views[0].num_pages) {
      return invalid_argument(kOperation, "all pools must have ", views[0].num_pages,
                              " pages as the first, got ", view->num_pages);
    }
    if (auto error = check_like(kOperation, "a result", results[i], "its pool", operands[i]);
        error.failure()) {
      return error;
    }
    views.push_back(*view);
  }
  const int64_t num_pages = views.empty() ? 0 : views[0].num_pages;
  if (*mode == Mode::kRaise) {
    for (const auto ids : {sources, targets}) {
      if (auto error = check_ids(kOperation, "page", ids, num_pages); error.failure()) return error;
    }
  }

  const size_t num_batches = num_elements(*num_dropped);
  const auto num_pairs = static_cast<size_t>(id_axes.back());
  for (size_t i = 0; i < views.size(); ++i) {
    carry_over(operands[i], results[i],
               views[i].layer_offset(static_cast<int64_t>(num_batches), 0));
  }
  for (size_t index = 0; index < num_batches; ++index) {
    const Pairs pairs = read_pairs(sources.subspan(index * num_pairs, num_pairs),
                                   targets.subspan(index * num_pairs, num_pairs), num_pages);
    for (size_t i = 0; i < views.size(); ++i) {
      auto* const pool = static_cast<std::byte*>(results[i].untyped_data()) +
                         views[i].layer_offset(static_cast<int64_t>(index), 0);
      if (auto error = copy(threads, views[i], pool, pairs); error.failure()) return error;
    }
    static_cast<int32_t*>(num_dropped->untyped_data())[index] = pairs.num_dropped;
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace pagedkv

XLA_FFI_DEFINE_HANDLER_SYMBOL(PagedkvCopyPages, pagedkv::copy_pages,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()  // source_ids
                                  .Arg<xla::ffi::AnyBuffer>()  // target_ids
                                  .RemainingArgs()             // pools
                                  .Ret<xla::ffi::AnyBuffer>()  // num_dropped
                                  .RemainingRets()             // pools, aliased
                                  .Attr<int64_t>("page_axis")
                                  .Attr<std::string_view>("mode"));  // drop or raise
