#include "attention_kernel.h"

#include <array>
#include <cstddef>

#include "attention_kernels.h"

// 16 bytes: SSE2 and NEON, which every x86-64 and AArch64 has.
#define PAGEDKV_TARGET
#define PAGEDKV_VECTOR_BYTES 16
#include "attention_kernel_impl.h"
#include "pagedkv/math.h"

namespace pagedkv {
namespace {

struct Kernel {
  std::string_view instruction_set;
  AttendBlock (*find)();
};

constexpr std::array kKernels = {Kernel{"avx512", attention_kernel_avx512},
                                 Kernel{"avx2", attention_kernel_avx2},
                                 Kernel{"portable", attention_kernel_portable}};

// Floats of the widest vector: what rows may be padded to.
constexpr int64_t kMaxWidth = 16;

}  // namespace

AttendBlock attention_kernel_portable() { return attend; }

std::vector<std::string_view> attention_instruction_sets() {
  std::vector<std::string_view> names;
  for (const Kernel& kernel : kKernels) {
    if (kernel.find() != nullptr) names.push_back(kernel.instruction_set);
  }
  return names;
}

AttendBlock find_attention_kernel(std::string_view instruction_set) {
  for (const Kernel& kernel : kKernels) {
    if (instruction_set != "best" && instruction_set != kernel.instruction_set) continue;
    if (const AttendBlock found = kernel.find()) return found;
  }
  return nullptr;
}

std::optional<size_t> attention_scratch_bytes(const AttentionLayer& layer, int64_t num_rows) {
  constexpr int64_t kLimit = int64_t{1} << 28;  // of each factor: no product below overflows
  if (layer.key_dim > kLimit || layer.value_dim > kLimit || num_rows > kLimit) return std::nullopt;
  const int64_t row = layer.key_dim + layer.value_dim + 2 * kMaxWidth;
  const int64_t per_row = row + 2;  // maximum and total
  return static_cast<size_t>(num_rows * per_row + kTileTokens * row + kRowBlock * kTileTokens) *
         sizeof(float);
}

}  // namespace pagedkv
