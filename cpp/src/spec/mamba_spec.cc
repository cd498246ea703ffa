#include "pagedkv/spec/mamba_spec.h"

#include <algorithm>
#include <utility>

#include "pagedkv/error.h"
#include "pagedkv/math.h"
#include "pagedkv/spec/merge.h"

namespace pagedkv {
namespace {

std::int64_t bytes_of(const StateArray& state) {
  std::int64_t bits = state.dtype.bits();
  for (std::int32_t size : state.shape) {
    check_at_least_one(MambaSpec::kName, "a dimension of shapes", size);
    bits = page_product(MambaSpec::kName, bits, size);
  }
  if (bits % 8 != 0) {
    throw_value_error(MambaSpec::kName, "a state must be whole bytes, got ", bits, " bits");
  }
  return bits / 8;
}

std::int64_t bytes_of(const std::vector<StateArray>& states) {
  if (states.empty()) throw_value_error(MambaSpec::kName, "shapes must not be empty");
  std::int64_t bytes = 0;
  for (const StateArray& state : states) bytes = saturating_add(bytes, bytes_of(state));
  return bytes;
}

// "(a, b)", and "(a,)" for one: what Python prints.
template <typename Items, typename Print>
std::string tuple_text(const Items& items, Print print) {
  std::string text = "(";
  for (std::size_t i = 0; i < items.size(); ++i) text += (i == 0 ? "" : ", ") + print(items[i]);
  return text + (items.size() == 1 ? ",)" : ")");
}

std::string shape_text(const StateArray& state) {
  return tuple_text(state.shape, [](std::int32_t size) { return std::to_string(size); });
}

bool has_one_dtype(const std::vector<StateArray>& states) {
  return std::all_of(states.begin(), states.end(), [&states](const StateArray& state) {
    return state.dtype == states.front().dtype;
  });
}

}  // namespace

std::string_view to_string(MambaCacheMode mode) {
  return mode == MambaCacheMode::kAlign ? "align" : "none";
}

MambaCacheMode mamba_cache_mode(std::string_view name) {
  if (name == "none") return MambaCacheMode::kNone;
  if (name == "align") return MambaCacheMode::kAlign;
  throw_value_error(MambaSpec::kName, "cache_mode must be 'none' or 'align', got '", name, "'");
}

MambaSpec::MambaSpec(std::int32_t page_size, std::vector<StateArray> states,
                     std::optional<std::int64_t> page_size_padded, MambaCacheMode cache_mode,
                     std::int32_t num_speculative_pages)
    : CacheSpec(kName, page_size, bytes_of(states), page_size_padded),
      states_(std::move(states)),
      cache_mode_(cache_mode),
      num_speculative_pages_(num_speculative_pages) {
  if (num_speculative_pages < 0) {
    throw_value_error(kName, "num_speculative_pages must be >= 0, got ", num_speculative_pages);
  }
}

std::string MambaSpec::type_id() const {
  std::string id = "mamba_" + tuple_text(states_, shape_text) + "_";
  id += has_one_dtype(states_)
            ? states_.front().dtype.name()
            : tuple_text(states_, [](const StateArray& state) { return state.dtype.name(); });
  if (cache_mode_ != MambaCacheMode::kNone) id += "_" + std::string(to_string(cache_mode_));
  if (num_speculative_pages_ > 0) id += "_" + std::to_string(num_speculative_pages_);
  return id;
}

MambaSpec MambaSpec::merge(std::span<const MambaSpec> specs) { return first_if_mergeable(specs); }

MambaSpec MambaSpec::copy_with_new_page_size(std::int32_t page_size) const {
  return MambaSpec(page_size, states_, page_size_padded(), cache_mode_, num_speculative_pages_);
}

}  // namespace pagedkv
