#pragma once

#include <cstdint>
#include <vector>

#include "pagedkv/bytes.h"
#include "pagedkv/manager/cache_manager.h"

/// How a manager was made, in files of ours.
namespace pagedkv {

/// The arguments of a manager's constructor.
struct ManagerConfig {
  PageId num_pages = 0;
  std::vector<AnyCacheSpec> specs;  ///< One a group.
  std::int32_t max_model_len = 0;
  CacheManagerOptions options;
};

/// The arguments that would make `manager` anew, empty.
ManagerConfig config_of(const CacheManager& manager);

/// The groups of `config`, without names of layers.
std::vector<CacheGroupSpec> groups_of(const ManagerConfig& config);

void put_config(ByteWriter& writer, const ManagerConfig& config);

/// Throws `std::invalid_argument` for what is no configuration. Makes no manager, so whether the
/// sizes go together is not checked.
ManagerConfig get_config(ByteReader& reader);

/// Name of the algorithm, and the root: 32 bytes.
void put_hasher(ByteWriter& writer, const PageHasher& hasher);
PageHasher get_hasher(ByteReader& reader);

}  // namespace pagedkv
