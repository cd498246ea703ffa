#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pagedkv/manager/cache_manager.h"
#include "pagedkv/types.h"

/// What a scheduler asks for in each step, for all its requests in one call.
namespace pagedkv {

/// What the requests of a step need room for, one entry a request.
struct StepDemand {
  std::span<const std::int32_t> num_new_tokens;
  std::span<const std::int32_t> num_cached_tokens = {};  ///< Empty: none of any.
  std::int32_t num_lookahead_tokens = 0;                 ///< Of each.
  std::span<const ShardId> shards = {};                  ///< Where each belongs; empty: anywhere.
  /// For requests that hold no pages yet, as in `Demand`.
  std::int32_t watermark_pages = 0;
  bool full_sequence_must_fit = false;
};

/// Pages that were added to the rows of some requests in one group.
struct AddedPages {
  std::vector<PageId> ids;
  std::vector<std::int32_t>
      offsets;  ///< Those of request `i` are `ids[offsets[i]:offsets[i + 1]]`.
};

/// What the children of a step's forks were given.
struct StepFork {
  std::int32_t num_requests = 0;   ///< The first so many were forked.
  std::vector<PageCopies> copies;  ///< One list a group.
};

/// What a step was given.
struct StepGrant {
  std::int32_t num_requests = 0;  ///< The first so many have room.
  std::vector<AddedPages> added;  ///< One a group; those of a cached prefix are among them.
  std::vector<std::int32_t> changed_rows;  ///< Positions of the requests whose page tables changed.
};

/// Throws `std::invalid_argument` "[operation] name must have one entry a request, ..." unless
/// there are as many entries as requests.
void check_one_each(const char* operation, const char* name, std::size_t num_entries,
                    std::size_t num_requests);

/// `CacheManager::match` of each request. Pages are hashed for all requests together, which is
/// faster than one request after the other.
///
/// `shards` says where each is looked for, anywhere if it is empty.
///
/// Throws what `match` throws, and `std::invalid_argument` unless there is one count, and one shard
/// if any, a request. Requires that no request is given twice.
void match_step(CacheManager& manager, std::span<Request* const> requests,
                std::span<const ShardId> shards, std::span<std::int32_t> num_cached_tokens);

/// `CacheManager::match_shards` of each request, hashed together. `num_cached_tokens` has one row a
/// request, of one entry a shard.
///
/// Throws as `match_step`.
void match_step_in_shards(CacheManager& manager, std::span<Request* const> requests,
                          std::span<std::int32_t> num_cached_tokens);

/// Makes room for the requests in turn, as `CacheManager::allocate` does, up to the first that does
/// not fit; for that and those after it nothing is done. One whose cached prefix is not in the
/// cache any more, since a request before it has taken the pages, does not fit either: match it
/// again.
///
/// Throws what `allocate` throws, and `std::invalid_argument` unless there is one count a request;
/// then nothing is done. Requires that no request is given twice.
StepGrant allocate_step(CacheManager& manager, std::span<Request* const> requests,
                        const StepDemand& demand);

/// Says that the K/V of the next `num_new_tokens[i]` tokens of each request is in its pages, as
/// `CacheManager::commit` does.
///
/// Throws what `commit` throws, and `std::invalid_argument` unless there is one count a request,
/// each >= 0; then nothing is done. Requires that no request is given twice.
///
/// Returns the positions of requests whose page tables changed: none, unless the manager
/// deduplicates.
std::vector<std::int32_t> commit_step(CacheManager& manager, std::span<Request* const> requests,
                                      std::span<const std::int32_t> num_new_tokens);

/// `CacheManager::fork` of `children[i]` from `parents[i]`, up to the first that does not fit.
///
/// Throws what `fork` throws, and `std::invalid_argument` unless there is one parent a child; then
/// nothing is done. Parents may be given twice, children not.
StepFork fork_step(CacheManager& manager, std::span<Request* const> parents,
                   std::span<Request* const> children);

}  // namespace pagedkv
