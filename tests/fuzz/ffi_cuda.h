#pragma once

#include <functional>
#include <string>

#include "ffi_frame.h"

namespace pagedkv::fuzz {

/// Gives a call that the CPU's handler made to that of CUDA, with loops in place of the device, and
/// calls `fail` unless both refuse it with the same words or make the same bytes of it. In mode
/// "raise" the one for CUDA drops. Returns whether it has a handler for the target.
bool compare_with_cuda(const Call& call, const Outcome& outcome,
                       const std::function<void(const std::string&)>& fail);

}  // namespace pagedkv::fuzz
