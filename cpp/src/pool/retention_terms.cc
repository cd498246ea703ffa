#include "pagedkv/pool/retention_terms.h"

namespace pagedkv {

TermId RetentionTerms::hold(const RetentionTerm& term) {
  if (!entries_.empty() && term == RetentionTerm{}) {
    hold(kDefaultTerm);
    return kDefaultTerm;
  }
  const auto [found, is_new] = ids_.try_emplace(term, kDefaultTerm);
  if (is_new) {
    if (free_ids_.empty()) {
      free_ids_.push_back(num_ids());
      entries_.emplace_back();
    }
    found->second = free_ids_.back();
    free_ids_.pop_back();
    at(found->second) = {term, tenants_.hold(term.tenant), 0};
  }
  hold(found->second);
  return found->second;
}

void RetentionTerms::release(TermId term) {
  if (--at(term).num_holders > 0) return;
  ids_.erase(at(term).value);
  free_ids_.push_back(term);
  tenants_.release(at(term).tenant);
}

}  // namespace pagedkv
