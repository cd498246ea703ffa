#include "ffi_breaks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ffi_cases.h"
#include "layouts.h"

namespace pagedkv::fuzz {
namespace {

// One of the arrays, and all others of its dtype and shape or none of them.
std::vector<Tensor*> pick_tensors(Call& call, Random& random) {
  std::vector<Tensor*> all;
  for (auto* tensors : {&call.operands, &call.results}) {
    for (Tensor& tensor : *tensors) all.push_back(&tensor);
  }
  if (all.empty()) return all;
  Tensor* const picked = random.pick(all);
  if (random.one_in(3)) return {picked};
  std::erase_if(all, [&](const Tensor* tensor) {
    return tensor->dtype != picked->dtype || tensor->shape != picked->shape;
  });
  return all;
}

void break_dtype(Call& call, Random& random) {
  const XLA_FFI_DataType dtype = random.pick(all_dtypes());
  for (Tensor* tensor : pick_tensors(call, random)) tensor->dtype = dtype;
}

void break_rank(Call& call, Random& random) {
  const uint64_t place = random.next();
  const int64_t size = random.between(0, 3);
  const bool removes = random.one_in(2);
  const bool swaps = random.one_in(3);
  for (Tensor* tensor : pick_tensors(call, random)) {
    auto& shape = tensor->shape;
    if (swaps && shape.size() > 1) {
      std::swap(shape[place % shape.size()], shape[(place + 1) % shape.size()]);
    } else if (removes && !shape.empty()) {
      shape.erase(shape.begin() + static_cast<ptrdiff_t>(place % shape.size()));
    } else {
      shape.insert(shape.begin() + static_cast<ptrdiff_t>(place % (shape.size() + 1)), size);
    }
  }
}

int64_t other_size(Random& random, int64_t size) {
  switch (random.below(5)) {
    case 0:
      return 0;
    case 1:
      return 1;
    case 2:
      return size == INT64_MAX ? size : size + 1;
    case 3:
      return std::max<int64_t>(0, size - 1);
    default:
      return random.between(0, 9);
  }
}

void break_axis(Call& call, Random& random) {
  const uint64_t place = random.next();
  const std::vector<Tensor*> tensors = pick_tensors(call, random);
  if (tensors.empty() || tensors[0]->shape.empty()) return;
  const size_t axis = place % tensors[0]->shape.size();
  const int64_t size = other_size(random, tensors[0]->shape[axis]);
  for (Tensor* tensor : tensors) tensor->shape[axis] = size;
}

// A huge axis, and no element: such an array takes no memory.
void break_with_extremes(Call& call, Random& random) {
  const uint64_t place = random.next(), empty_place = random.next();
  const int64_t size = random.pick(extreme_sizes());
  for (Tensor* tensor : pick_tensors(call, random)) {
    if (tensor->shape.size() < 2) continue;
    const size_t rank = tensor->shape.size(), axis = place % rank;
    tensor->shape[axis] = size;
    tensor->shape[(axis + 1 + empty_place % (rank - 1)) % rank] = 0;
  }
}

// One axis of a size becomes another one, wherever it is: the arrays still match.
void break_size_everywhere(Call& call, Random& random) {
  std::vector<int64_t> sizes;
  for (const Tensor& tensor : call.operands) {
    sizes.insert(sizes.end(), tensor.shape.begin(), tensor.shape.end());
  }
  if (sizes.empty()) return;
  const int64_t from = random.pick(sizes);
  const int64_t to = random.one_in(4) ? random.pick(extreme_sizes()) : other_size(random, from);
  for (auto* tensors : {&call.operands, &call.results}) {
    for (Tensor& tensor : *tensors) std::ranges::replace(tensor.shape, from, to);
  }
}

void break_ids(Call& call, Random& random) {
  for (Tensor& tensor : call.operands) {
    if (tensor.dtype != XLA_FFI_DataType_S32 || random.one_in(2)) continue;
    const int64_t bound = random.between(0, 20);
    for (size_t at = 0; at + 4 <= tensor.contents.size(); at += 4) {
      if (random.one_in(2)) continue;
      const int32_t id = bad_id(random, bound);
      std::memcpy(tensor.contents.data() + at, &id, sizeof(id));
    }
  }
}

std::string other_string(Random& random) {
  switch (random.below(4)) {
    case 0:
      return std::string(random.pick(kLayouts).name);
    case 1:
      return std::string(random.below(300), 'N');
    case 2:
      return std::string("drop\0", random.below(6));
    default: {
      constexpr std::string_view kWords[] = {"drop",   "raise", "best", "portable", "avx2",
                                             "avx512", "nhd",   "NHD ", "Drop"};
      return std::string(random.pick(kWords));
    }
  }
}

// Of its own type.
void break_value(Attribute& attribute, Random& random) {
  if (auto* flag = std::get_if<bool>(&attribute.value)) {
    *flag = !*flag;
  } else if (auto* number = std::get_if<int64_t>(&attribute.value)) {
    const int64_t others[] = {-1, 0, 1, 2, 3, 4, 5, 8, INT32_MAX, INT64_MAX, INT64_MIN};
    *number = random.pick(others);
  } else if (auto* scale = std::get_if<float>(&attribute.value)) {
    const float others[] = {NAN, INFINITY, -INFINITY, 0.0F, -1.0F, 3e38F};
    *scale = random.pick(others);
  } else if (auto* text = std::get_if<std::string>(&attribute.value)) {
    *text = other_string(random);
  }
}

bool break_attribute(Call& call, Random& random) {
  if (call.attributes.empty()) return false;
  Attribute& attribute = call.attributes[random.below(call.attributes.size())];
  switch (random.below(12)) {
    case 0:
      attribute.value = int32_t{7};
      return true;
    case 1:
      attribute.name += 's';
      return true;
    case 2:
      call.attributes.pop_back();
      return true;
    case 3:
      call.attributes.push_back({"more", true});
      return true;
    default:
      break_value(attribute, random);
      return false;
  }
}

// Too few, too many, or in another order.
template <typename Tensors>
void break_list(Tensors& tensors, Random& random) {
  const auto at = [&] {
    return tensors.begin() + static_cast<ptrdiff_t>(random.below(tensors.size()));
  };
  if (tensors.empty()) return;
  switch (random.below(3)) {
    case 0:
      tensors.erase(at());
      break;
    case 1: {
      const Tensor more = *at();
      tensors.insert(at(), more);
      break;
    }
    default:
      std::swap(*at(), *at());
  }
}

}  // namespace

bool break_call(Call& call, Random& random) {
  switch (random.below(16)) {
    case 0:
    case 1:
      break_dtype(call, random);
      return false;
    case 2:
    case 3:
      break_rank(call, random);
      return false;
    case 4:
    case 5:
    case 6:
      break_axis(call, random);
      return false;
    case 7:
    case 8:
      break_with_extremes(call, random);
      return false;
    case 9:
    case 10:
      break_size_everywhere(call, random);
      return false;
    case 11:
    case 12:
      break_ids(call, random);
      return false;
    case 13:
    case 14:
      return break_attribute(call, random);
    default:
      if (random.one_in(2)) {
        break_list(call.operands, random);
      } else {
        break_list(call.results, random);
      }
      return true;
  }
}

}  // namespace pagedkv::fuzz
