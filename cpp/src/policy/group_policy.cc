#include "pagedkv/policy/group_policy.h"

#include "pagedkv/policy/chunked_local.h"
#include "pagedkv/policy/cross_attention.h"
#include "pagedkv/policy/full_attention.h"
#include "pagedkv/policy/sliding_window.h"
#include "pagedkv/policy/state_space.h"

namespace pagedkv {
namespace {

// One line a spec: the policy that serves it.
template <typename Spec>
struct PolicyOf;
template <typename Policy>
struct Is {
  using type = Policy;
};
template <>
struct PolicyOf<FullAttentionSpec> : Is<FullAttentionPolicy> {};
template <>
struct PolicyOf<SinkFullAttentionSpec> : Is<FullAttentionPolicy> {};
template <>
struct PolicyOf<SlidingWindowSpec> : Is<SlidingWindowPolicy> {};
template <>
struct PolicyOf<ChunkedLocalAttentionSpec> : Is<ChunkedLocalPolicy> {};
template <>
struct PolicyOf<CrossAttentionSpec> : Is<CrossAttentionPolicy> {};
template <>
struct PolicyOf<MambaSpec> : Is<StateSpacePolicy> {};

}  // namespace

std::unique_ptr<GroupPolicy> make_policy(GroupId group, const AnyCacheSpec& any_spec) {
  return std::visit(
      [group]<typename Spec>(const Spec& spec) -> std::unique_ptr<GroupPolicy> {
        return std::make_unique<typename PolicyOf<Spec>::type>(group, spec);
      },
      any_spec);
}

}  // namespace pagedkv
