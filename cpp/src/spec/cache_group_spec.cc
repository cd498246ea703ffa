#include "pagedkv/spec/cache_group_spec.h"

#include <utility>

#include "pagedkv/error.h"

namespace pagedkv {
namespace {

template <typename Spec>
AnyCacheSpec merge_as(std::span<const AnyCacheSpec> specs) {
  std::vector<Spec> same_type;
  same_type.reserve(specs.size());
  for (const AnyCacheSpec& spec : specs) {
    if (!std::holds_alternative<Spec>(spec)) {
      throw_value_error(Spec::kName, "layers of a group must have one type_id, got ",
                        base_of(specs.front()).type_id(), " and ", base_of(spec).type_id());
    }
    same_type.push_back(std::get<Spec>(spec));
  }
  return Spec::merge(same_type);
}

}  // namespace

AnyCacheSpec merge(std::span<const AnyCacheSpec> specs) {
  if (specs.empty()) throw_value_error("merge", "cannot merge 0 specs, must be at least 1");
  return std::visit([specs]<typename Spec>(const Spec&) { return merge_as<Spec>(specs); },
                    specs.front());
}

CacheGroupsConfig::CacheGroupsConfig(std::int32_t num_pages,
                                     std::vector<CacheGroupSpec> kv_cache_groups)
    : num_pages_(num_pages), kv_cache_groups_(std::move(kv_cache_groups)) {
  check_at_least_one("CacheGroupsConfig", "num_pages", num_pages);
  if (kv_cache_groups_.empty()) {
    throw_value_error("CacheGroupsConfig", "kv_cache_groups must not be empty");
  }
}

}  // namespace pagedkv
