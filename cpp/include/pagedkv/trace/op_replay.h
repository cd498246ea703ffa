#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "pagedkv/types.h"

namespace pagedkv {

/// The first call of a trace that has another answer now.
struct ReplayDifference {
  std::int64_t op = 0;   ///< Which call, from 1 on.
  std::string call;      ///< The call and its arguments.
  std::string recorded;  ///< The answer in the trace.
  std::string replayed;  ///< The answer now, or the invariant that does not hold after it.
};

/// What came of a replay.
struct ReplayReport {
  std::int64_t num_ops = 0;  ///< Calls whose answers were compared.
  bool was_stopped = false;  ///< The trace has its end: the recording did not end with the process.
  bool is_cut = false;       ///< The trace ends in the middle of a record, which was left out.
  /// A last call that the trace has no answer to; it was made, and returned.
  std::optional<std::string> unanswered_call;
  std::optional<ReplayDifference> difference;  ///< Nothing: all answers are the same.
};

struct ReplayOptions {
  bool check_invariants = false;  ///< After each call: O(pages) each.
  PageId max_pages = 1 << 24;     ///< Refuse traces of larger pools: 64 bytes a page.
};

/// Makes the calls of a trace (see `OpRecorder`) again on a manager like the one it was recorded
/// from, up to the first that has another answer.
///
/// Throws `std::system_error` if the file cannot be read; `std::invalid_argument` if it is no
/// trace, of another version or damaged, naming the byte, or if its pool is too large.
ReplayReport replay_ops(const std::string& path, const ReplayOptions& options = {});

}  // namespace pagedkv
