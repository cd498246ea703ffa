#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pagedkv/spec/cache_spec.h"
#include "pagedkv/spec/dtype.h"

namespace pagedkv {

/// What a request keeps of the states it has been through. Names of vLLM's `mamba_cache_mode`.
enum class MambaCacheMode {
  kNone,   ///< The running state alone.
  kAlign,  ///< Also the state at the last page end, which other requests can start from.
};

/// "none" or "align".
std::string_view to_string(MambaCacheMode mode);

/// The inverse. Throws `std::invalid_argument` for other names.
MambaCacheMode mamba_cache_mode(std::string_view name);

/// Pages a request holds: its running state (and, aligned, the one before), and one for each
/// speculative token.
constexpr std::int64_t max_mamba_pages(MambaCacheMode mode, std::int64_t num_speculative_pages) {
  return (mode == MambaCacheMode::kAlign ? 2 : 1) + num_speculative_pages;
}

/// One array of a state: its shape, without a batch axis, and its element type.
struct StateArray {
  std::vector<std::int32_t> shape;
  DType dtype;

  friend bool operator==(const StateArray&, const StateArray&) = default;
};

/// A layer with a state of fixed size: Mamba, linear attention, short convolution.
///
/// A page holds one whole state, the one after a multiple of `page_size` tokens when it is kept
/// for others.
class MambaSpec final : public CacheSpec {
 public:
  static constexpr std::string_view kName = "MambaSpec";

  /// `real_page_size_bytes()` is the sum over `states` of `product(shape) * bits / 8`.
  ///
  /// Throws `std::invalid_argument` unless there is a state, each dimension is >= 1, each array is
  /// whole bytes, and `num_speculative_pages >= 0`.
  MambaSpec(std::int32_t page_size, std::vector<StateArray> states,
            std::optional<std::int64_t> page_size_padded = std::nullopt,
            MambaCacheMode cache_mode = MambaCacheMode::kNone,
            std::int32_t num_speculative_pages = 0);

  /// The arrays of a state.
  const std::vector<StateArray>& states() const { return states_; }

  MambaCacheMode cache_mode() const { return cache_mode_; }

  /// States kept for draft tokens that may be rejected.
  std::int32_t num_speculative_pages() const { return num_speculative_pages_; }

  /// "mamba_{shapes}_{dtype}" with shapes as Python prints a tuple of tuples. States of several
  /// dtypes list them; a cache mode or speculative pages that are not the default follow.
  std::string type_id() const override;
  std::string_view kind() const override { return "mamba"; }

  /// `max_mamba_pages`: the length of a request does not matter.
  std::int64_t max_pages_per_request(const RequestLimits&) const override {
    return max_mamba_pages(cache_mode_, num_speculative_pages_);
  }

  /// The spec of a group whose layers have `specs`. Throws `std::invalid_argument` if there are
  /// none, or two differ in `type_id()`, page size or padding.
  static MambaSpec merge(std::span<const MambaSpec> specs);

  /// The same with `page_size` tokens between states that are kept; the bytes stay.
  MambaSpec copy_with_new_page_size(std::int32_t page_size) const;

  friend bool operator==(const MambaSpec& a, const MambaSpec& b) {
    return a.page_size() == b.page_size() && a.states_ == b.states_ &&
           a.page_size_padded() == b.page_size_padded() && a.cache_mode_ == b.cache_mode_ &&
           a.num_speculative_pages_ == b.num_speculative_pages_;
  }

 private:
  std::vector<StateArray> states_;
  MambaCacheMode cache_mode_;
  std::int32_t num_speculative_pages_;
};

}  // namespace pagedkv
