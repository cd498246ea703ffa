#include "attention_kernels.h"

#if defined(__x86_64__)

// The rest of the library is built for any x86-64; only these functions use the extension.
#define PAGEDKV_TARGET __attribute__((target("avx512f,avx2,fma,f16c")))
#define PAGEDKV_VECTOR_BYTES 64
#include "attention_kernel_impl.h"

namespace pagedkv {

const AttentionKernel* attention_kernel_avx512() {
  return __builtin_cpu_supports("avx512f") ? &kKernel : nullptr;
}

}  // namespace pagedkv

#else

namespace pagedkv {

const AttentionKernel* attention_kernel_avx512() { return nullptr; }

}  // namespace pagedkv

#endif
