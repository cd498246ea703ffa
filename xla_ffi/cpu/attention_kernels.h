#pragma once

#include "attention_kernel.h"

/// The kernel of each instruction set, or null where the CPU, or the architecture, lacks it.
namespace pagedkv {

const AttentionKernel* attention_kernel_portable();
const AttentionKernel* attention_kernel_avx2();
const AttentionKernel* attention_kernel_avx512();

}  // namespace pagedkv
