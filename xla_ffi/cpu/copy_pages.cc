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
#include "page_checks.h"
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
  const auto checked =
      check_copy(kOperation, source_ids, target_ids, pools, *num_dropped, new_pools, page_axis);
  if (!checked) return checked.error();
  const std::span<const int32_t> sources = int32_span(source_ids), targets = int32_span(target_ids);
  const int64_t num_pages = checked->num_pages;
  if (*mode == Mode::kRaise) {
    for (const auto ids : {sources, targets}) {
      if (auto error = check_ids(kOperation, "page", ids, num_pages); error.failure()) return error;
    }
  }

  const size_t num_pools = checked->views.size(), num_pairs = checked->num_ids;
  for (size_t i = 0; i < num_pools; ++i) {
    carry_over(checked->before[i], checked->after[i], checked->pool_bytes(i));
  }
  for (size_t index = 0; index < checked->num_batches; ++index) {
    const Pairs pairs = read_pairs(sources.subspan(index * num_pairs, num_pairs),
                                   targets.subspan(index * num_pairs, num_pairs), num_pages);
    for (size_t i = 0; i < num_pools; ++i) {
      auto error = copy(threads, checked->views[i], checked->pool(i, index), pairs);
      if (error.failure()) return error;
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
