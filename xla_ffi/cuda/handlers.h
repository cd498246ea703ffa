#pragma once

#include "xla/ffi/api/c_api.h"

// The FFI targets that have a handler for CUDA, one line each.
extern "C" {
XLA_FFI_Error* PagedkvCudaWriteKv(XLA_FFI_CallFrame* call_frame);
XLA_FFI_Error* PagedkvCudaWriteKvQuantized(XLA_FFI_CallFrame* call_frame);
XLA_FFI_Error* PagedkvCudaGatherPages(XLA_FFI_CallFrame* call_frame);
XLA_FFI_Error* PagedkvCudaGatherDequantized(XLA_FFI_CallFrame* call_frame);
XLA_FFI_Error* PagedkvCudaGatherInto(XLA_FFI_CallFrame* call_frame);
XLA_FFI_Error* PagedkvCudaGatherThrough(XLA_FFI_CallFrame* call_frame);
XLA_FFI_Error* PagedkvCudaScatterPages(XLA_FFI_CallFrame* call_frame);
XLA_FFI_Error* PagedkvCudaCopyPages(XLA_FFI_CallFrame* call_frame);
XLA_FFI_Error* PagedkvCudaPagesToRows(XLA_FFI_CallFrame* call_frame);
XLA_FFI_Error* PagedkvCudaRowsToPages(XLA_FFI_CallFrame* call_frame);
}
