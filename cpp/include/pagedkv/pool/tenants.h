#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <vector>

#include "pagedkv/pool/retention_term.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// Place of a tenant in `Tenants`.
using TenantSlot = std::int32_t;

/// How many pages each tenant has, and may have. Those without pages and quota are forgotten.
///
/// Slot 0 is `kNoTenant`, which is always there and has no quota.
class Tenants {
 public:
  static constexpr PageId kNoQuota = std::numeric_limits<PageId>::max();

  Tenants();

  /// The slot of a tenant, which stays until `release` was called as often. O(log tenants).
  TenantSlot hold(TenantId tenant);
  void release(TenantSlot slot);

  /// The slot of a tenant that is known, or -1.
  TenantSlot find(TenantId tenant) const;

  /// Pages that are held for the tenant, and free ones with content that it brought in.
  PageId num_pages(TenantSlot slot) const { return at(slot).num_pages; }
  void add_pages(TenantSlot slot, PageId count) { at(slot).num_pages += count; }

  PageId quota(TenantSlot slot) const { return at(slot).quota; }
  void set_quota(TenantSlot slot, PageId quota) { at(slot).quota = quota; }

  bool is_over_quota(TenantSlot slot) const { return at(slot).num_pages > at(slot).quota; }

  /// Whether one more page would be over the quota.
  bool is_full(TenantSlot slot) const { return at(slot).num_pages >= at(slot).quota; }

  /// Slots are less than this.
  TenantSlot num_slots() const { return static_cast<TenantSlot>(tenants_.size()); }

 private:
  struct Tenant {
    TenantId number = kNoTenant;
    PageId num_pages = 0;
    PageId quota = kNoQuota;
    std::int32_t num_holders = 0;
  };

  Tenant& at(TenantSlot slot) { return tenants_[static_cast<std::size_t>(slot)]; }
  const Tenant& at(TenantSlot slot) const { return tenants_[static_cast<std::size_t>(slot)]; }

  std::vector<Tenant> tenants_;
  std::vector<TenantSlot> free_slots_;
  std::map<TenantId, TenantSlot> slots_;
};

}  // namespace pagedkv
