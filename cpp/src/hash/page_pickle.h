#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "pagedkv/types.h"

/// What CPython's `pickle.dumps(value, protocol=5)` gives for the values that are hashed.
///
/// The same in CPython 3.8 to 3.13. Every bytes, text and non-empty tuple is remembered in the
/// memo, though nothing refers back to it; integers take the shortest of three forms, since a
/// token fits in 32 bits; what is written since the last frame began becomes a frame once it has
/// 64 KiB, looked at before each value.
namespace pagedkv {

/// Most bytes that `write_page_pickle` needs, with what is stored beyond the end.
std::size_t max_page_pickle_bytes(std::size_t num_tokens);

/// Pickles `(parent, (tokens...), None)`. Returns the number of bytes.
std::size_t write_page_pickle(std::span<std::byte> buffer, std::span<const std::byte> parent,
                              std::span<const TokenId> tokens);

/// Most bytes that `write_text_pickle` needs.
std::size_t max_text_pickle_bytes(std::string_view text);

/// Pickles a text of valid UTF-8. Returns the number of bytes.
std::size_t write_text_pickle(std::span<std::byte> buffer, std::string_view text);

}  // namespace pagedkv
