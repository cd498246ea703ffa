#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "pagedkv/spec/chunked_local_attention_spec.h"
#include "pagedkv/spec/cross_attention_spec.h"
#include "pagedkv/spec/full_attention_spec.h"
#include "pagedkv/spec/mamba_spec.h"
#include "pagedkv/spec/sink_full_attention_spec.h"
#include "pagedkv/spec/sliding_window_spec.h"

namespace pagedkv {

/// One of the specs a group can have, by value. A new attention type adds its spec here: a type
/// before the one it derives from, so that a conversion from Python finds the closest.
using AnyCacheSpec = std::variant<SinkFullAttentionSpec, FullAttentionSpec, SlidingWindowSpec,
                                  ChunkedLocalAttentionSpec, CrossAttentionSpec, MambaSpec>;

/// What is common to all of them.
inline const CacheSpec& base_of(const AnyCacheSpec& spec) {
  return std::visit([](const CacheSpec& base) -> const CacheSpec& { return base; }, spec);
}

/// The name of the spec's type, such as "SlidingWindowSpec".
inline std::string_view name_of(const AnyCacheSpec& spec) {
  return std::visit([]<typename Spec>(const Spec&) { return Spec::kName; }, spec);
}

/// The spec of a group whose layers have `specs`, by the rule of their type.
///
/// Throws `std::invalid_argument` if there are none, if they are not of one type, or as the
/// type's `merge` does.
AnyCacheSpec merge(std::span<const AnyCacheSpec> specs);

/// Layers that share one page table: each keeps its own tensors, all use the same page ids.
struct CacheGroupSpec {
  AnyCacheSpec kv_cache_spec;
  /// Names for the reader; nothing if nobody said.
  std::optional<std::vector<std::string>> layer_names = std::nullopt;

  friend bool operator==(const CacheGroupSpec&, const CacheGroupSpec&) = default;
};

/// All that a manager needs to know of a model: its groups, and the pages they share.
class CacheGroupsConfig {
 public:
  /// Throws `std::invalid_argument` unless `num_pages >= 1` and there is a group.
  CacheGroupsConfig(std::int32_t num_pages, std::vector<CacheGroupSpec> kv_cache_groups);

  /// Pages of the pool, the null page included.
  std::int32_t num_pages() const { return num_pages_; }
  const std::vector<CacheGroupSpec>& kv_cache_groups() const { return kv_cache_groups_; }

  friend bool operator==(const CacheGroupsConfig&, const CacheGroupsConfig&) = default;

 private:
  std::int32_t num_pages_;
  std::vector<CacheGroupSpec> kv_cache_groups_;
};

}  // namespace pagedkv
