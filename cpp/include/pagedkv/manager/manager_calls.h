#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "pagedkv/manager/cache_manager.h"

/// The calls on a manager that change it, or answer from what it holds, as values.
///
/// Each has a name, a code that stays the same in every version, its arguments one by one with
/// their names, and how it is made. To add one: a struct here, its place in `ManagerCall`, and
/// one line at the top of the method, as the others have. All else (traces, replay) follows from
/// these.
namespace pagedkv {

struct MatchCall {
  static constexpr std::string_view kName = "match";
  static constexpr std::uint8_t kCode = 1;
  Request* request = nullptr;
  ShardId shard = kAnyShard;

  static void visit(auto& self, auto&& field) {
    field("request", self.request);
    field("shard", self.shard);
  }
  void make(CacheManager& manager) const { manager.match(*request, shard); }
};

struct FindPrefixCall {
  static constexpr std::string_view kName = "find_prefix";
  static constexpr std::uint8_t kCode = 2;
  Request* request = nullptr;
  std::int32_t max_tokens = 0;
  ShardId shard = kAnyShard;
  GroupPages* found = nullptr;  ///< Part of the answer.

  static void visit(auto& self, auto&& field) {
    field("request", self.request);
    field("max_tokens", self.max_tokens);
    field("shard", self.shard);
  }
  void make(CacheManager& manager) const {
    manager.find_prefix(*request, max_tokens, shard, *found);
  }
};

struct FindAgainCall {
  static constexpr std::string_view kName = "find_again";
  static constexpr std::uint8_t kCode = 3;
  Request* request = nullptr;
  std::int32_t num_tokens = 0;
  ShardId shard = kAnyShard;
  GroupPages* found = nullptr;  ///< Part of the answer.

  static void visit(auto& self, auto&& field) {
    field("request", self.request);
    field("num_tokens", self.num_tokens);
    field("shard", self.shard);
  }
  void make(CacheManager& manager) const {
    manager.find_again(*request, num_tokens, shard, *found);
  }
};

struct AllocateCall {
  static constexpr std::string_view kName = "allocate";
  static constexpr std::uint8_t kCode = 4;
  Request* request = nullptr;
  Demand demand;

  static void visit(auto& self, auto&& field) {
    field("request", self.request);
    field("num_new_tokens", self.demand.num_new_tokens);
    field("num_cached_tokens", self.demand.num_cached_tokens);
    field("num_lookahead_tokens", self.demand.num_lookahead_tokens);
    field("shard", self.demand.shard);
    field("stays_in_shard", self.demand.stays_in_shard);
    field("may_be_ahead", self.demand.may_be_ahead);
    field("watermark_pages", self.demand.watermark_pages);
    field("full_sequence_must_fit", self.demand.full_sequence_must_fit);
    field("prefix", self.demand.prefix);
  }
  void make(CacheManager& manager) const {
    [[maybe_unused]] const bool has_room = manager.allocate(*request, demand);
  }
};

struct CommitCall {
  static constexpr std::string_view kName = "commit";
  static constexpr std::uint8_t kCode = 5;
  Request* request = nullptr;
  std::int32_t num_computed_tokens = 0;

  static void visit(auto& self, auto&& field) {
    field("request", self.request);
    field("num_computed_tokens", self.num_computed_tokens);
  }
  void make(CacheManager& manager) const { manager.commit(*request, num_computed_tokens); }
};

struct SetNumComputedTokensCall {
  static constexpr std::string_view kName = "set_num_computed_tokens";
  static constexpr std::uint8_t kCode = 6;
  Request* request = nullptr;
  std::int32_t num_computed_tokens = 0;

  static void visit(auto& self, auto&& field) {
    field("request", self.request);
    field("num_computed_tokens", self.num_computed_tokens);
  }
  void make(CacheManager& manager) const {
    manager.set_num_computed_tokens(*request, num_computed_tokens);
  }
};

struct CacheCall {
  static constexpr std::string_view kName = "cache";
  static constexpr std::uint8_t kCode = 7;
  Request* request = nullptr;
  std::int32_t num_tokens = 0;
  std::int64_t step_end = 0;
  std::string operation;  ///< What messages call it.

  static void visit(auto& self, auto&& field) {
    field("request", self.request);
    field("num_tokens", self.num_tokens);
    field("step_end", self.step_end);
    field("operation", self.operation);
  }
  void make(CacheManager& manager) const {
    manager.cache(*request, num_tokens, step_end, operation.c_str());
  }
};

struct FreeCall {
  static constexpr std::string_view kName = "free";
  static constexpr std::uint8_t kCode = 8;
  Request* request = nullptr;

  static void visit(auto& self, auto&& field) { field("request", self.request); }
  void make(CacheManager& manager) const { manager.free(*request); }
};

struct ResetPrefixCacheCall {
  static constexpr std::string_view kName = "reset_prefix_cache";
  static constexpr std::uint8_t kCode = 9;

  static void visit(auto&, auto&&) {}
  void make(CacheManager& manager) const { manager.reset_prefix_cache(); }
};

struct SetNumShardsCall {
  static constexpr std::string_view kName = "set_num_shards";
  static constexpr std::uint8_t kCode = 10;
  std::int32_t num_shards = 1;

  static void visit(auto& self, auto&& field) { field("num_shards", self.num_shards); }
  void make(CacheManager& manager) const { manager.set_num_shards(num_shards); }
};

struct RestoreCall {
  static constexpr std::string_view kName = "restore";
  static constexpr std::uint8_t kCode = 11;
  std::span<const std::byte> snapshot;

  static void visit(auto& self, auto&& field) { field("snapshot", self.snapshot); }
  void make(CacheManager& manager) const { manager.restore(snapshot); }
};

struct ForkCall {
  static constexpr std::string_view kName = "fork";
  static constexpr std::uint8_t kCode = 12;
  Request* request = nullptr;  ///< The child.
  Request* parent = nullptr;
  std::vector<PageCopies>* copies = nullptr;  ///< Their targets are in the rows of the child.

  static void visit(auto& self, auto&& field) {
    field("child", self.request);
    field("parent", self.parent);
  }
  void make(CacheManager& manager) const {
    [[maybe_unused]] const bool has_room = manager.fork(*parent, *request, *copies);
  }
};

struct PinCall {
  static constexpr std::string_view kName = "pin";
  static constexpr std::uint8_t kCode = 13;
  Request* request = nullptr;

  static void visit(auto& self, auto&& field) { field("request", self.request); }
  void make(CacheManager& manager) const { manager.pin(*request); }
};

struct UnpinCall {
  static constexpr std::string_view kName = "unpin";
  static constexpr std::uint8_t kCode = 14;
  PinId pin = 0;

  static void visit(auto& self, auto&& field) { field("pin", self.pin); }
  void make(CacheManager& manager) const { manager.unpin(pin); }
};

struct AdvanceTimeCall {
  static constexpr std::string_view kName = "advance_time";
  static constexpr std::uint8_t kCode = 15;
  std::int64_t now = 0;

  static void visit(auto& self, auto&& field) { field("now", self.now); }
  void make(CacheManager& manager) const { manager.advance_time(now); }
};

struct SetTenantQuotaCall {
  static constexpr std::string_view kName = "set_tenant_quota";
  static constexpr std::uint8_t kCode = 16;
  TenantId tenant = 0;
  bool has_quota = false;
  PageId max_pages = 0;

  static void visit(auto& self, auto&& field) {
    field("tenant", self.tenant);
    field("has_quota", self.has_quota);
    field("max_pages", self.max_pages);
  }
  void make(CacheManager& manager) const {
    manager.set_tenant_quota(tenant, has_quota ? std::optional(max_pages) : std::nullopt);
  }
};

using ManagerCall = std::variant<MatchCall, FindPrefixCall, FindAgainCall, AllocateCall, CommitCall,
                                 SetNumComputedTokensCall, CacheCall, FreeCall,
                                 ResetPrefixCacheCall, SetNumShardsCall, RestoreCall, ForkCall,
                                 PinCall, UnpinCall, AdvanceTimeCall, SetTenantQuotaCall>;

}  // namespace pagedkv
