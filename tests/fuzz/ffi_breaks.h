#pragma once

#include "ffi_frame.h"
#include "fuzz_random.h"

namespace pagedkv::fuzz {

/// Spoils a call in one way: a dtype, a rank, an axis, ids, an attribute, or which operands and
/// results there are. Often alike in all arrays of one shape, so as to get past the checks that
/// arrays match. Returns whether XLA itself may refuse the call, before the handler sees it.
///
/// The call must be settled afterwards.
bool break_call(Call& call, Random& random);

}  // namespace pagedkv::fuzz
