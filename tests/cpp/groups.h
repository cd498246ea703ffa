#pragma once

#include <cstdint>
#include <numeric>
#include <optional>
#include <vector>

#include "pagedkv/spec/cache_group_spec.h"
#include "pagedkv/types.h"

// Groups of small layers, and prompts.
namespace pagedkv {

inline constexpr std::int32_t kPageSize = 4;

inline CacheGroupSpec full_group() {
  return {FullAttentionSpec(kPageSize, 1, 1, DType("float32")), std::nullopt};
}

inline CacheGroupSpec window_group(std::int32_t window) {
  return {
      SlidingWindowSpec(
          {.page_size = kPageSize, .num_kv_heads = 1, .head_size = 1, .dtype = DType("float32")},
          window),
      std::nullopt};
}

/// Counts up from `first`.
inline std::vector<TokenId> tokens_of(std::size_t count, TokenId first = 100) {
  std::vector<TokenId> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

}  // namespace pagedkv
