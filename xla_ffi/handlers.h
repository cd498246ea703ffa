#pragma once

#include "xla/ffi/api/c_api.h"

// Every FFI target of the library, one line each. A platform defines the ones it supports.
extern "C" {
XLA_FFI_Error* PagedkvWriteKv(XLA_FFI_CallFrame* call_frame);
XLA_FFI_Error* PagedkvWriteKvQuantized(XLA_FFI_CallFrame* call_frame);
XLA_FFI_Error* PagedkvGatherPages(XLA_FFI_CallFrame* call_frame);
XLA_FFI_Error* PagedkvGatherDequantized(XLA_FFI_CallFrame* call_frame);
XLA_FFI_Error* PagedkvGatherInto(XLA_FFI_CallFrame* call_frame);
XLA_FFI_Error* PagedkvGatherThrough(XLA_FFI_CallFrame* call_frame);
XLA_FFI_Error* PagedkvScatterPages(XLA_FFI_CallFrame* call_frame);
XLA_FFI_Error* PagedkvCopyPages(XLA_FFI_CallFrame* call_frame);
XLA_FFI_Error* PagedkvPagesToRows(XLA_FFI_CallFrame* call_frame);
XLA_FFI_Error* PagedkvRowsToPages(XLA_FFI_CallFrame* call_frame);
XLA_FFI_Error* PagedkvPagedAttention(XLA_FFI_CallFrame* call_frame);
}
