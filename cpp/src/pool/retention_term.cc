#include "pagedkv/pool/retention_term.h"

#include "pagedkv/error.h"

namespace pagedkv {

RetentionTerm checked_term(const char* operation, RetentionTerm term) {
  if (term.priority < 0 || term.priority > RetentionTerm::kMaxPriority) {
    throw_value_error(operation, "priority must be in [0, ", RetentionTerm::kMaxPriority, "], got ",
                      term.priority);
  }
  if (term.ttl < 1) throw_value_error(operation, "ttl must be >= 1, got ", term.ttl);
  if (term.tenant < 0 && term.tenant != kNoTenant) {
    throw_value_error(operation, "tenant must be >= 0, got ", term.tenant);
  }
  if (term.priority == RetentionTerm::kDefaultPriority) term.ttl = RetentionTerm::kForever;
  return term;
}

}  // namespace pagedkv
