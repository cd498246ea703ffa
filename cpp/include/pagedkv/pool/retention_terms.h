#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "pagedkv/pool/retention_term.h"
#include "pagedkv/pool/tenants.h"

namespace pagedkv {

/// Place of a term in `RetentionTerms`.
using TermId = std::int32_t;

/// The term of pages that nobody asked to retain.
inline constexpr TermId kDefaultTerm = 0;

/// The terms in use, each once, so that a page need only keep a number. Those without holders are
/// forgotten, `kDefaultTerm` aside. Keeps the tenants of its terms held.
class RetentionTerms {
 public:
  /// `tenants` must outlive this.
  explicit RetentionTerms(Tenants& tenants) : tenants_(tenants) { hold(RetentionTerm{}); }

  /// The number of a checked term, which stays until `release` was called as often.
  /// O(log terms), and O(1) for the default term.
  TermId hold(const RetentionTerm& term);
  void hold(TermId term) { ++at(term).num_holders; }
  void release(TermId term);

  const RetentionTerm& operator[](TermId term) const { return at(term).value; }
  TenantSlot tenant(TermId term) const { return at(term).tenant; }
  std::int32_t num_holders(TermId term) const { return at(term).num_holders; }

  /// Numbers are less than this.
  TermId num_ids() const { return static_cast<TermId>(entries_.size()); }

 private:
  struct Entry {
    RetentionTerm value;
    TenantSlot tenant = 0;
    std::int32_t num_holders = 0;
  };

  Entry& at(TermId term) { return entries_[static_cast<std::size_t>(term)]; }
  const Entry& at(TermId term) const { return entries_[static_cast<std::size_t>(term)]; }

  Tenants& tenants_;
  std::vector<Entry> entries_;
  std::vector<TermId> free_ids_;
  std::map<RetentionTerm, TermId> ids_;
};

}  // namespace pagedkv
