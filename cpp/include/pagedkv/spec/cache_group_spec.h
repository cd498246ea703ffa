#pragma once

#include <string>
#include <variant>
#include <vector>

#include "pagedkv/spec/cache_spec.h"

namespace pagedkv {

/// One of the specs a group can have, by value. A new attention type adds its spec here.
using AnyCacheSpec = std::variant<FullAttentionSpec>;

/// What is common to all of them.
inline const CacheSpec& base_of(const AnyCacheSpec& spec) {
  return std::visit([](const CacheSpec& base) -> const CacheSpec& { return base; }, spec);
}

/// Layers that share one page table: each keeps its own tensors, all use the same page ids.
struct CacheGroupSpec {
  AnyCacheSpec kv_cache_spec;
  std::vector<std::string> layer_names;
};

}  // namespace pagedkv
