#include "pagedkv/policy/group_policy.h"

#include "pagedkv/policy/full_attention.h"

namespace pagedkv {
namespace {

// One line a spec: the policy that serves it.
template <typename Spec>
struct PolicyOf;

template <>
struct PolicyOf<FullAttentionSpec> {
  using type = FullAttentionPolicy;
};

}  // namespace

std::unique_ptr<GroupPolicy> make_policy(GroupId group, const AnyCacheSpec& any_spec) {
  return std::visit(
      [group]<typename Spec>(const Spec& spec) -> std::unique_ptr<GroupPolicy> {
        return std::make_unique<typename PolicyOf<Spec>::type>(group, spec);
      },
      any_spec);
}

}  // namespace pagedkv
