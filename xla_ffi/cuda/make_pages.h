#pragma once

#include <algorithm>
#include <cstddef>
#include <initializer_list>

#include "checks.h"
#include "page_runs.h"
#include "page_view.h"
#include "pagedkv/math.h"
#include "units.h"

namespace pagedkv::cuda {

/// What a kernel is told of the pool in `array`. `others` are sizes and addresses of what its pages
/// are copied from or to, which units have to divide too.
inline PageRuns make_pages(const PageView& view, const ffi::AnyBuffer& array,
                           std::initializer_list<int64_t> others) {
  auto* const pool = static_cast<std::byte*>(array.untyped_data());
  return {.pool = pool,
          .num_layers = view.num_layers,
          .num_outer = view.num_outer,
          .num_pages = view.num_pages,
          .run_bytes = view.run_bytes,
          .unit = std::min(unit_bytes({address(pool), view.run_bytes}), unit_bytes(others))};
}

/// Into how many items a page is divided.
inline int64_t num_page_parts(const PageView& view, int64_t part_bytes) {
  return std::max<int64_t>(1, ceil_div(view.page_bytes(), part_bytes));
}

}  // namespace pagedkv::cuda
