#include <nanobind/nanobind.h>

#include "cuda/handlers.h"
#include "targets.h"

namespace {

constexpr pagedkv::FfiTarget kTargets[] = {
    {"pagedkv.write_kv.v2", PagedkvCudaWriteKv},
    {"pagedkv.write_kv_quantized.v1", PagedkvCudaWriteKvQuantized},
    {"pagedkv.gather_pages.v2", PagedkvCudaGatherPages},
    {"pagedkv.gather_dequantized.v1", PagedkvCudaGatherDequantized},
    {"pagedkv.gather_into.v1", PagedkvCudaGatherInto},
    {"pagedkv.gather_through.v1", PagedkvCudaGatherThrough},
    {"pagedkv.scatter_pages.v1", PagedkvCudaScatterPages},
    {"pagedkv.copy_pages.v1", PagedkvCudaCopyPages},
    {"pagedkv.pages_to_rows.v1", PagedkvCudaPagesToRows},
    {"pagedkv.rows_to_pages.v1", PagedkvCudaRowsToPages},
};

}  // namespace

NB_MODULE(_ffi_cuda, m) {
  m.doc() = "XLA FFI handlers of pagedkv for the CUDA platform.";
  pagedkv::bind_targets(m, kTargets);
}
