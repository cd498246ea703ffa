#include "attention_schedule.h"

#include <algorithm>
#include <utility>

#include "pagedkv/math.h"

namespace pagedkv {
namespace {

// Rows of a block: enough that each key loaded is used often, and few enough to stay in the cache.
constexpr int64_t kBlockRows = 48;
// Pieces for each thread, if there can be: they are not of the same size.
constexpr int64_t kPiecesPerThread = 8;

std::vector<QueryRun> cut_queries(const AttentionBatch& batch,
                                  std::span<const RequestDefect> defects, int64_t max_tokens) {
  std::vector<QueryRun> runs;
  for (size_t request = 0; request < defects.size(); ++request) {
    if (defects[request] != RequestDefect::kNone) continue;
    const int64_t num_queries = batch.num_queries(request);
    for (int64_t i = 0; i < num_queries; i += max_tokens) {
      runs.push_back({.request = request,
                      .first_token = batch.query_starts[request] + i,
                      .first_position = batch.first_position(request) + i,
                      .num_tokens = std::min(max_tokens, num_queries - i)});
    }
  }
  return runs;
}

// A part that some query of a run sees, and how many of its tokens.
struct SeenPart {
  int64_t part;
  int64_t num_tokens;
};

std::vector<SeenPart> seen_parts(const QueryRun& run, const AttentionMask& mask) {
  std::vector<SeenPart> parts;
  const int64_t end = run.first_position + run.num_tokens;
  const int64_t end_sinks = std::min(mask.num_sink_tokens, end);
  const int64_t first = std::max(end_sinks, mask.first_seen(run.first_position));
  const auto overlap = [](int64_t begin, int64_t past, int64_t part) {
    return std::max<int64_t>(
        0, std::min(past, (part + 1) * kPartTokens) - std::max(begin, part * kPartTokens));
  };
  const int64_t num_sink_parts = ceil_div(end_sinks, kPartTokens);
  for (int64_t part = 0; part < num_sink_parts; ++part) {
    parts.push_back({part, overlap(0, end_sinks, part) + overlap(first, end, part)});
  }
  for (int64_t part = std::max(num_sink_parts, first / kPartTokens); part * kPartTokens < end;
       ++part) {
    parts.push_back({part, overlap(first, end, part)});
  }
  return parts;
}

int64_t num_tokens(std::span<const SeenPart> parts) {
  int64_t total = 0;
  for (const SeenPart& part : parts) total += part.num_tokens;
  return total;
}

// How many kv heads go in one block: all of a page's are read together, where there is work enough
// for every thread without cutting it there.
int64_t heads_per_block(int64_t kv_heads, int64_t rows_per_head, int64_t num_parts,
                        int64_t num_wanted) {
  int64_t heads = std::clamp<int64_t>(kBlockRows / rows_per_head, 1, kv_heads);
  while (heads > 1 && num_parts * ceil_div(kv_heads, heads) < num_wanted) {
    heads = ceil_div(heads, int64_t{2});
  }
  return heads;
}

// Adds the pieces of a block: one, or several of about `fair_share` tokens each and what joins
// them.
void add_block(AttentionSchedule& schedule, AttentionPiece piece, std::span<const SeenPart> parts,
               bool is_cut, double fair_share) {
  const auto num_states = static_cast<int64_t>(parts.size());
  if (is_cut) {
    piece.first_state = schedule.num_states;
    schedule.joins.push_back({.run = piece.run,
                              .kv_head = piece.kv_head,
                              .num_kv_heads = piece.num_kv_heads,
                              .first_state = schedule.num_states,
                              .num_states = num_states});
    schedule.num_states += num_states;
  }
  for (const SeenPart& part : parts) {
    const auto next_cost = static_cast<double>(piece.cost + part.num_tokens);
    if (is_cut && piece.cost > 0 && next_cost > fair_share) {
      schedule.pieces.push_back(piece);
      piece.first_state += static_cast<int64_t>(piece.parts.size());
      piece.parts.clear();
      piece.cost = 0;
    }
    piece.parts.push_back(part.part);
    piece.cost += part.num_tokens;
  }
  schedule.pieces.push_back(std::move(piece));
}

}  // namespace

AttentionSchedule schedule_attention(const AttentionBatch& batch,
                                     std::span<const RequestDefect> defects,
                                     const AttentionLayer& layer, int64_t num_threads,
                                     int64_t state_limit) {
  AttentionSchedule schedule;
  const int64_t group_size = layer.group_size, kv_heads = layer.num_kv_heads;
  schedule.runs = cut_queries(batch, defects, std::max<int64_t>(1, kBlockRows / group_size));
  if (schedule.runs.empty()) return schedule;

  std::vector<std::vector<SeenPart>> parts_of;
  int64_t max_tokens = 0, num_parts = 0, num_seen = 0;
  for (const QueryRun& run : schedule.runs) {
    const auto& parts = parts_of.emplace_back(seen_parts(run, batch.mask));
    const int64_t seen = num_tokens(parts);
    max_tokens = std::max(max_tokens, run.num_tokens);
    num_parts += static_cast<int64_t>(parts.size());
    num_seen += seen;
    schedule.work += static_cast<double>(seen * run.num_tokens) *
                     static_cast<double>(layer.num_heads()) *
                     static_cast<double>(layer.keys.dim + layer.values.dim);
  }
  const int64_t num_wanted = num_threads == 1 ? 1 : kPiecesPerThread * num_threads;
  schedule.rows_per_head = max_tokens * group_size;
  const int64_t heads = heads_per_block(kv_heads, schedule.rows_per_head, num_parts, num_wanted);
  schedule.num_rows = schedule.rows_per_head * heads;

  const double fair_share = static_cast<double>(num_seen) *
                            static_cast<double>(ceil_div(kv_heads, heads)) /
                            static_cast<double>(num_wanted);
  for (size_t i = 0; i < schedule.runs.size(); ++i) {
    const std::vector<SeenPart>& parts = parts_of[i];
    const auto num_states = static_cast<int64_t>(parts.size());
    for (int64_t kv_head = 0; kv_head < kv_heads; kv_head += heads) {
      const bool is_cut = num_threads > 1 && num_states > 1 &&
                          static_cast<double>(num_tokens(parts)) > fair_share &&
                          schedule.num_states + num_states <= state_limit / schedule.num_rows;
      const AttentionPiece block{.run = &schedule.runs[i],
                                 .kv_head = kv_head,
                                 .num_kv_heads = std::min(heads, kv_heads - kv_head),
                                 .parts = {},
                                 .cost = 0,
                                 .first_state = -1};
      add_block(schedule, block, parts, is_cut, fair_share);
    }
  }
  std::ranges::stable_sort(schedule.pieces, std::ranges::greater{}, &AttentionPiece::cost);
  return schedule;
}

}  // namespace pagedkv
