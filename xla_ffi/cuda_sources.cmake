# The handlers for CUDA, without their kernels and the extension that hands them to Python. The
# extension compiles them, and tests that run the kernels as loops.
set(PAGEDKV_FFI_CUDA_SOURCES
    cuda/copy_pages.cc
    cuda/gather_dequantized.cc
    cuda/gather_pages.cc
    cuda/move_pages.cc
    cuda/scatter_pages.cc
    cuda/write_kv.cc
    cuda/write_kv_quantized.cc)
list(TRANSFORM PAGEDKV_FFI_CUDA_SOURCES PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
