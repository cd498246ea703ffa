#include <nanobind/nanobind.h>

#include "cuda/handlers.h"

namespace nb = nanobind;

namespace {

nb::capsule capsule(XLA_FFI_Handler* handler) {
  return nb::capsule(reinterpret_cast<void*>(handler));
}

}  // namespace

NB_MODULE(_ffi_cuda, m) {
  m.doc() = "XLA FFI handlers of pagedkv for the CUDA platform.";
  m.def(
      "registrations",
      [] {
        nb::dict targets;
        targets["pagedkv.write_kv.v2"] = capsule(PagedkvCudaWriteKv);
        targets["pagedkv.write_kv_quantized.v1"] = capsule(PagedkvCudaWriteKvQuantized);
        targets["pagedkv.gather_pages.v2"] = capsule(PagedkvCudaGatherPages);
        targets["pagedkv.gather_dequantized.v1"] = capsule(PagedkvCudaGatherDequantized);
        targets["pagedkv.gather_into.v1"] = capsule(PagedkvCudaGatherInto);
        targets["pagedkv.gather_through.v1"] = capsule(PagedkvCudaGatherThrough);
        targets["pagedkv.scatter_pages.v1"] = capsule(PagedkvCudaScatterPages);
        targets["pagedkv.copy_pages.v1"] = capsule(PagedkvCudaCopyPages);
        targets["pagedkv.pages_to_rows.v1"] = capsule(PagedkvCudaPagesToRows);
        targets["pagedkv.rows_to_pages.v1"] = capsule(PagedkvCudaRowsToPages);
        return targets;
      },
      nb::sig("def registrations() -> dict[str, object]"),
      "Every FFI target of this platform by name, as jax.ffi.register_ffi_target takes it.");
  m.def(
      "api_version", [] { return nb::make_tuple(XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR); },
      nb::sig("def api_version() -> tuple[int, int]"),
      "(major, minor) of the XLA FFI API this module was built with.");
}
