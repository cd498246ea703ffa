#pragma once

#include <algorithm>
#include <cstdint>

namespace pagedkv {

/// Which earlier tokens of its request a token sees: those of the window and of the chunk it is in,
/// and the first ones whatever these are. The token at `position` sees `[0, num_sink_tokens)` and
/// `[first_seen(position), position]`, as far as they are not after it.
struct AttentionMask {
  int64_t window;           // tokens, itself among them; at least 1
  int64_t chunk;            // tokens of a chunk, counted from the request's first; at least 1
  int64_t num_sink_tokens;  // not negative

  /// Does not decrease from position to position.
  int64_t first_seen(int64_t position) const {
    return std::max({int64_t{0}, position - window + 1, position / chunk * chunk});
  }
};

}  // namespace pagedkv
