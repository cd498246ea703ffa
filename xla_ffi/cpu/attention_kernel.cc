#include "attention_kernel.h"

#include <array>

#include "attention_kernels.h"

// 16 bytes: SSE2 and NEON, which every x86-64 and AArch64 has.
#define PAGEDKV_TARGET
#define PAGEDKV_VECTOR_BYTES 16
#include "attention_kernel_impl.h"

namespace pagedkv {
namespace {

struct Entry {
  std::string_view instruction_set;
  const AttentionKernel* (*find)();
};

constexpr std::array kKernels = {Entry{"avx512", attention_kernel_avx512},
                                 Entry{"avx2", attention_kernel_avx2},
                                 Entry{"portable", attention_kernel_portable}};

}  // namespace

const AttentionKernel* attention_kernel_portable() { return &kKernel; }

std::vector<std::string_view> attention_instruction_sets() {
  std::vector<std::string_view> names;
  for (const Entry& entry : kKernels) {
    if (entry.find() != nullptr) names.push_back(entry.instruction_set);
  }
  return names;
}

const AttentionKernel* find_attention_kernel(std::string_view instruction_set) {
  for (const Entry& entry : kKernels) {
    if (instruction_set != "best" && instruction_set != entry.instruction_set) continue;
    if (const AttentionKernel* found = entry.find()) return found;
  }
  return nullptr;
}

}  // namespace pagedkv
