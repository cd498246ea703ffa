#include "pagedkv/pool/page_shards.h"

#include "pagedkv/error.h"

namespace pagedkv {

PageShards::PageShards(PageId num_pages, std::int32_t num_shards)
    : size_(num_shards), pages_per_shard_(0) {
  if (num_shards < 1 || num_pages % num_shards != 0) {
    throw_value_error("PagePool", "the number of shards must divide num_pages ", num_pages,
                      ", got ", num_shards);
  }
  pages_per_shard_ = num_pages / num_shards;
}

}  // namespace pagedkv
