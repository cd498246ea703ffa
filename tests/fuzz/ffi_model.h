#pragma once

#include <functional>
#include <string>

#include "ffi_frame.h"

namespace pagedkv::fuzz {

/// Compares what an accepted call did with what naive loops over its elements say, and calls `fail`
/// if they differ. Returns whether there is a loop for the handler: there is none for what rounds,
/// quantised rows and attention.
bool compare_with_model(const Call& call, const Outcome& outcome,
                        const std::function<void(const std::string&)>& fail);

}  // namespace pagedkv::fuzz
