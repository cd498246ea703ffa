#pragma once

#include "attention_kernel.h"

/// The kernel of each instruction set, or null where the CPU, or the architecture, lacks it.
namespace pagedkv {

AttendBlock attention_kernel_portable();
AttendBlock attention_kernel_avx2();
AttendBlock attention_kernel_avx512();

}  // namespace pagedkv
