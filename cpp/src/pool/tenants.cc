#include "pagedkv/pool/tenants.h"

#include <cassert>

namespace pagedkv {

Tenants::Tenants() { hold(kNoTenant); }

TenantSlot Tenants::hold(TenantId tenant) {
  const auto [found, is_new] = slots_.try_emplace(tenant, 0);
  if (is_new) {
    if (free_slots_.empty()) {
      free_slots_.push_back(num_slots());
      tenants_.emplace_back();
    }
    found->second = free_slots_.back();
    free_slots_.pop_back();
    at(found->second) = {.number = tenant};
  }
  ++at(found->second).num_holders;
  return found->second;
}

void Tenants::release(TenantSlot slot) {
  if (--at(slot).num_holders > 0) return;
  assert(at(slot).num_pages == 0 && at(slot).quota == kNoQuota);
  slots_.erase(at(slot).number);
  free_slots_.push_back(slot);
}

TenantSlot Tenants::find(TenantId tenant) const {
  const auto found = slots_.find(tenant);
  return found == slots_.end() ? -1 : found->second;
}

}  // namespace pagedkv
