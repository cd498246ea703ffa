#pragma once

#include <span>
#include <string_view>

#include "pagedkv/error.h"
#include "pagedkv/spec/cache_spec.h"

namespace pagedkv {

/// The first of `specs`, which layers of all of them can share a page table by.
///
/// Throws `std::invalid_argument` if there are none, or as `check_mergeable` does.
template <typename Spec>
const Spec& first_if_mergeable(std::span<const Spec> specs) {
  if (specs.empty()) {
    throw_value_error(Spec::kName, "cannot merge 0 specs, must be at least 1");
  }
  for (const Spec& spec : specs) check_mergeable(Spec::kName, specs.front(), spec);
  return specs.front();
}

}  // namespace pagedkv
