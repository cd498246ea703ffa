#include "pagedkv/manager/config_bytes.h"

#include <algorithm>
#include <utility>

#include "pagedkv/spec/spec_bytes.h"

namespace pagedkv {

ManagerConfig config_of(const CacheManager& manager) {
  ManagerConfig config;
  config.num_pages = manager.pool().num_pages();
  config.specs.assign(manager.specs().begin(), manager.specs().end());
  config.max_model_len = manager.max_model_len();
  config.options = manager.options();
  config.options.hash_page_size = manager.hash_page_size();
  config.options.num_shards = manager.pool().shards().size();
  return config;
}

std::vector<CacheGroupSpec> groups_of(const ManagerConfig& config) {
  std::vector<CacheGroupSpec> groups;
  for (const AnyCacheSpec& spec : config.specs) groups.push_back({spec, std::nullopt});
  return groups;
}

void put_hasher(ByteWriter& writer, const PageHasher& hasher) {
  writer.put_text(name(hasher.algorithm()));
  writer.put_raw(hasher.root().bytes);
}

PageHasher get_hasher(ByteReader& reader) {
  const HashAlgorithm algorithm = hash_algorithm_named(reader.get_text());
  PageHash root;
  std::ranges::copy(reader.get_raw(root.bytes.size()), root.bytes.begin());
  return PageHasher(algorithm, root);
}

void put_config(ByteWriter& writer, const ManagerConfig& config) {
  writer.put_int(config.num_pages);
  writer.put_int(config.max_model_len);
  writer.put_uint(config.options.enable_caching);
  writer.put_uint(config.options.use_eagle);
  writer.put_uint(config.options.as_easydel);
  writer.put_uint(config.options.deduplicate);
  writer.put_uint(config.options.free_order == FreeOrder::kUncachedFirst);
  writer.put_uint(config.options.prefer_contiguous);
  put_hasher(writer, config.options.hasher);
  writer.put_int(config.options.hash_page_size.value_or(0));
  writer.put_int(config.options.num_shards);
  writer.put_uint(config.specs.size());
  for (const AnyCacheSpec& spec : config.specs) put_spec(writer, spec);
}

ManagerConfig get_config(ByteReader& reader) {
  ManagerConfig config;
  config.num_pages = reader.get_int_as<PageId>();
  config.max_model_len = reader.get_int_as<std::int32_t>();
  config.options.enable_caching = reader.get_bool();
  config.options.use_eagle = reader.get_bool();
  config.options.as_easydel = reader.get_bool();
  config.options.deduplicate = reader.get_bool();
  config.options.free_order = reader.get_bool() ? FreeOrder::kUncachedFirst : FreeOrder::kLru;
  config.options.prefer_contiguous = reader.get_bool();
  config.options.hasher = get_hasher(reader);
  const auto hash_page_size = reader.get_int_as<std::int32_t>();
  if (hash_page_size != 0) config.options.hash_page_size = hash_page_size;
  config.options.num_shards = reader.get_int_as<std::int32_t>();
  for (std::size_t left = reader.get_count(); left > 0; --left) {
    config.specs.push_back(get_spec(reader));
  }
  return config;
}

}  // namespace pagedkv
