#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "attention_batch.h"
#include "attention_kernel.h"

/// How a step is cut into pieces for threads. No bit of the result depends on it.
namespace pagedkv {

/// Some neighbouring query tokens of one request.
struct QueryRun {
  size_t request;
  int64_t first_token;
  int64_t first_position;
  int64_t num_tokens;
};

/// Parts [first_part, end_part) of a block: a run, and some neighbouring kv heads. Parts of which no
/// token is seen are left out.
struct AttentionPiece {
  const QueryRun* run;
  int64_t kv_head;
  int64_t num_kv_heads;
  std::vector<int64_t> parts;  // in order
  int64_t cost;
  int64_t first_state;  // where the states of its parts go; -1 for a piece that is a whole block
};

/// A block whose states are merged when all are there.
struct AttentionJoin {
  const QueryRun* run;
  int64_t kv_head;
  int64_t num_kv_heads;
  int64_t first_state;
  int64_t num_states;
};

/// Runs do not move: pieces point at them.
struct AttentionSchedule {
  std::vector<QueryRun> runs;
  std::vector<AttentionPiece> pieces;  // those that cost most first
  std::vector<AttentionJoin> joins;
  int64_t rows_per_head = 0;  // of a block, at most
  int64_t num_rows = 0;       // of a block, at most
  int64_t num_states = 0;
  double work = 0;  // multiplications, about
};

/// Cuts the query tokens of all valid requests. `state_limit` bounds `num_states * num_rows`.
AttentionSchedule schedule_attention(const AttentionBatch& batch,
                                     std::span<const RequestDefect> defects,
                                     const AttentionLayer& layer, int64_t num_threads,
                                     int64_t state_limit);

}  // namespace pagedkv
