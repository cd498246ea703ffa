#pragma once

#include <cstdint>

namespace pagedkv {

/// Index of a page in its pool. 32 bits, since page tables on the device are int32.
using PageId = std::int32_t;

/// Index of a group of layers that share one page table.
using GroupId = std::int32_t;

/// Index of a data-parallel shard of a pool: a contiguous range of its pages.
using ShardId = std::int32_t;

/// A token of the model's vocabulary, as the device sees it.
using TokenId = std::int32_t;

/// Stands for "no page" wherever a `PageId` is expected.
inline constexpr PageId kNoPage = -1;

/// Page 0 of every pool: never allocated, never cached. Page tables are padded with it, and it
/// stands for pages that a sliding window has left behind.
inline constexpr PageId kNullPage = 0;

/// Stands for "no group" wherever a `GroupId` is expected.
inline constexpr GroupId kNoGroup = -1;

/// Stands for "wherever there is one" wherever a `ShardId` is expected.
inline constexpr ShardId kAnyShard = -1;

}  // namespace pagedkv
