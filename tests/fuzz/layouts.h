#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace pagedkv::fuzz {

/// The layouts as `pagedkv.KVLayout` documents them, written apart from the library's own table.
/// The axes of a layer's pool: P pages, T tokens of a page, H heads, D elements of a head.
struct Layout {
  std::string_view name;
  std::string_view axes;
  bool is_separate;      // a pool for keys and one for values
  bool is_interleaved;   // along the heads K0 V0 K1 V1 ...
  bool is_side_by_side;  // a head has its key, then its value
  bool pads;             // there may be more heads and elements than the rows have

  size_t num_pools() const { return is_separate ? 2 : 1; }
  size_t num_streams() const { return has_heads() ? 2 : 1; }
  bool has_heads() const { return axes.find('H') != axes.npos; }
  size_t page_axis() const { return axes.find('P'); }
};

inline constexpr std::array kLayouts = {
    Layout{"NHD", "PTHD", true, false, false, false},
    Layout{"HND", "PHTD", true, false, false, false},
    Layout{"HEADS_FIRST", "HPTD", true, false, false, false},
    Layout{"FUSED", "PTHD", false, true, false, false},
    Layout{"FUSED_PACKED", "PTHHD", false, true, false, true},
    Layout{"SIDE_BY_SIDE", "PTHHD", false, false, true, true},
    Layout{"LATENT", "PTD", false, false, false, false},
    Layout{"LATENT_PACKED", "PTTD", false, false, false, true},
    Layout{"LATENT_TRANSPOSED", "PDT", false, false, false, false},
};

}  // namespace pagedkv::fuzz
