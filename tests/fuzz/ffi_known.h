#pragma once

#include <vector>

#include "ffi_frame.h"

namespace pagedkv::fuzz {

/// Calls that once did what no call may: each is from a random one, and made smaller.
std::vector<Call> known_calls();

}  // namespace pagedkv::fuzz
