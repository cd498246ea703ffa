#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "pagedkv/hash/page_hasher.h"
#include "pagedkv/manager/coordinator.h"
#include "pagedkv/manager/request.h"
#include "pagedkv/pool/page_pool.h"
#include "pagedkv/spec/cache_group_spec.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// Decides which page every token of every request lives in.
///
/// A request's life: `match` finds the longest cached prefix, `allocate` takes it and makes room
/// for the tokens of the next step, `commit` says that their K/V is computed (only now can others
/// find it), and so on with `allocate` and `commit`; `free` gives the pages back.
///
/// Single-threaded by contract. Deterministic: the same calls give the same page ids. A call that
/// throws, and an `allocate` that returns false, leave everything as it was.
class CacheManager {
 public:
  /// `num_pages` counts the null page. `hasher` names the content of pages.
  ///
  /// Throws `std::invalid_argument` for no groups, groups with different page sizes, sizes < 1,
  /// and pools whose slots (`num_pages * page_size`) do not fit in int32.
  CacheManager(PageId num_pages, std::span<const CacheGroupSpec> kv_cache_groups,
               std::int32_t max_model_len, bool enable_caching = true,
               const PageHasher& hasher = PageHasher());

  /// Requests that still hold pages are let go; they can go to another manager.
  ~CacheManager();

  CacheManager(const CacheManager&) = delete;
  CacheManager& operator=(const CacheManager&) = delete;

  const PagePool& pool() const { return pool_; }
  GroupId num_groups() const { return coordinator_.num_groups(); }
  std::int32_t page_size() const { return coordinator_.page_size(); }
  std::int32_t max_model_len() const { return max_model_len_; }
  bool enable_caching() const { return enable_caching_; }
  const PageHasher& hasher() const { return hasher_; }

  /// Requests that hold pages.
  std::int32_t num_requests() const;

  /// Tokens of the longest prefix of `request` that is cached in every group: a multiple of
  /// `page_size()`, less than `num_tokens()` (one token is left to compute the next from). 0 for
  /// a request that holds pages. Holds nothing: pages may go until `allocate`. Changes nothing but
  /// the digests of `request`, and scratch memory.
  ///
  /// Throws `std::invalid_argument` for extra keys that the hasher cannot take, if caching is on.
  std::int32_t match(Request& request);

  /// Makes room for `num_new_tokens` tokens after those computed. The first call of a request
  /// takes the first `num_cached_tokens` of its prefix from the cache, as `match` found them;
  /// they count as computed. Returns false if too few pages are free.
  ///
  /// Throws `std::invalid_argument` if `num_new_tokens < 1`; if the tokens would be more than the
  /// request has, or than `max_model_len()`; for extra keys that the hasher cannot take, if pages
  /// are to be found by others; if `num_cached_tokens` is not a multiple of
  /// `page_size()`, is not 0 for a request that holds pages, or is more than is cached (now); if
  /// the request holds pages of another manager.
  [[nodiscard]] bool allocate(Request& request, std::int32_t num_new_tokens,
                              std::int32_t num_cached_tokens = 0);

  /// Says that the K/V of the first `num_computed_tokens` tokens is in the pages, or will be
  /// before anything that is started later reads them. Full pages can be found from now on.
  ///
  /// Throws `std::invalid_argument` if the request holds no pages, if there is no room for that
  /// many tokens, or if it is fewer than before.
  void commit(Request& request, std::int32_t num_computed_tokens);

  /// Gives all pages of `request` back; its last page is evicted first. O(its pages).
  ///
  /// Throws `std::invalid_argument` if the request holds no pages: freed twice, or never allocated.
  void free(Request& request);

  /// The page table row of `request` in `group`: page `i` holds tokens from `i * page_size()` on.
  /// Valid until the next call that changes the request.
  ///
  /// Throws `std::invalid_argument` if the request holds no pages, `std::out_of_range` for a
  /// foreign group.
  std::span<const PageId> page_ids(const Request& request, GroupId group) const;

  /// Tokens there is room for in the pages that `request` holds; 0 if none.
  std::int32_t num_allocated_tokens(const Request& request) const;

  /// Forgets all cached content. Returns false and does nothing while a request holds pages.
  bool reset_prefix_cache() { return pool_.reset_prefix_cache(); }

  /// Throws `std::logic_error` naming what does not hold. For tests.
  void check_invariants() const;

 private:
  /// What one request holds.
  struct RequestState {
    Request* request = nullptr;             ///< Null: the entry is free.
    GroupPages pages;                       ///< The page table rows, one a group.
    std::vector<std::int32_t> num_cached;   ///< Leading pages of each row that are in the index.
    std::int32_t num_allocated_tokens = 0;  ///< Tokens there is room for.
  };

  RequestState& state_of(const char* operation, const Request& request);
  const RequestState& state_of(const char* operation, const Request& request) const;
  void check_allocate(const Request& request, std::int32_t num_new_tokens,
                      std::int32_t num_cached_tokens) const;
  void find_prefix(Request& request, std::int32_t num_cached_tokens);
  RequestState& attach(Request& request);
  void detach(Request& request);

  Coordinator coordinator_;
  PagePool pool_;
  std::int32_t max_model_len_;
  bool enable_caching_;
  PageHasher hasher_;
  std::vector<RequestState> states_;
  std::vector<std::int32_t> free_states_;
  GroupPages hit_;               // scratch of match and allocate
  std::vector<PageId> scratch_;  // scratch of allocate and free
};

}  // namespace pagedkv
