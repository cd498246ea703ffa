#include "pagedkv/policy/group_policy.h"

#include <type_traits>

#include "pagedkv/error.h"
#include "pagedkv/policy/full_attention.h"

namespace pagedkv {
namespace {

// One line a spec: the policy that serves it, if there is one.
template <typename Spec>
struct PolicyOf {
  using type = void;
};

template <>
struct PolicyOf<FullAttentionSpec> {
  using type = FullAttentionPolicy;
};

}  // namespace

std::unique_ptr<GroupPolicy> make_policy(GroupId group, const AnyCacheSpec& any_spec) {
  return std::visit(
      [group]<typename Spec>(const Spec& spec) -> std::unique_ptr<GroupPolicy> {
        using Policy = typename PolicyOf<Spec>::type;
        if constexpr (std::is_void_v<Policy>) {
          throw_value_error("make_policy", "a group of ", Spec::kName, " cannot be served yet");
        } else {
          return std::make_unique<Policy>(group, spec);
        }
      },
      any_spec);
}

}  // namespace pagedkv
