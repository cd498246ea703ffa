#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "checks.h"
#include "id_range.h"
#include "pagedkv/error.h"
#include "xla/ffi/api/ffi.h"

/// Ids come from device memory, so none is trusted: each passes `in_range` before it becomes an
/// address.
namespace pagedkv {

namespace ffi = xla::ffi;

/// What a handler does about an id that is out of range.
enum class Mode {
  kDrop,   // writes nothing and counts it
  kRaise,  // fails before the first write
};

inline std::optional<Mode> parse_mode(std::string_view name) {
  if (name == "drop") return Mode::kDrop;
  if (name == "raise") return Mode::kRaise;
  return std::nullopt;
}

inline ffi::Error unknown_mode(std::string_view operation, std::string_view name) {
  return ffi::Error::InvalidArgument(
      error_message(operation, "mode must be drop or raise, got ", name));
}

/// "[operation] slot 512 at position 1 is out of range [0, 512)", for the first bad id. Positions
/// count through all batch elements.
inline ffi::Error check_ids(std::string_view operation, std::string_view noun,
                            std::span<const int32_t> ids, int64_t size) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] == kPadding || in_range(ids[i], size)) continue;
    return ffi::Error(ffi::ErrorCode::kOutOfRange,
                      error_message(operation, noun, ' ', ids[i], " at position ", i,
                                    " is out of range [0, ", size, ')'));
  }
  return ffi::Error::Success();
}

/// "[operation] layer 30 is out of range [0, 30)", for the first bad layer.
inline ffi::Error check_layers(std::string_view operation, std::span<const int32_t> layers,
                               int64_t num_layers) {
  for (const int32_t layer : layers) {
    if (in_range(layer, num_layers)) continue;
    return ffi::Error(
        ffi::ErrorCode::kOutOfRange,
        error_message(operation, "layer ", layer, " is out of range [0, ", num_layers, ')'));
  }
  return ffi::Error::Success();
}

/// Ids out of range, padding aside.
inline int32_t count_dropped(std::span<const int32_t> ids, int64_t size) {
  return static_cast<int32_t>(std::ranges::count_if(
      ids, [&](int32_t id) { return id != kPadding && !in_range(id, size); }));
}

/// The elements of an int32 buffer.
inline std::span<const int32_t> int32_span(const ffi::AnyBuffer& buffer) {
  return {static_cast<const int32_t*>(buffer.untyped_data()), num_elements(buffer)};
}

}  // namespace pagedkv
