# The handlers for CPUs, without the extension that hands them to Python. Who includes this compiles
# them: the extension itself, and tests that call them as XLA does.
set(PAGEDKV_FFI_CPU_SOURCES
    cpu/attention_batch.cc
    cpu/attention_kernel.cc
    cpu/attention_kernel_avx2.cc
    cpu/attention_kernel_avx512.cc
    cpu/attention_operands.cc
    cpu/attention_schedule.cc
    cpu/copy_pages.cc
    cpu/gather_dequantized.cc
    cpu/gather_pages.cc
    cpu/move_pages.cc
    cpu/paged_attention.cc
    cpu/quantize_kernels.cc
    cpu/scatter_pages.cc
    cpu/write_kv.cc
    cpu/write_kv_quantized.cc)
list(TRANSFORM PAGEDKV_FFI_CPU_SOURCES PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
# a * b + c as one instruction wherever there is one: half the arithmetic of attention.
set_source_files_properties(
  ${CMAKE_CURRENT_LIST_DIR}/cpu/attention_kernel.cc
  ${CMAKE_CURRENT_LIST_DIR}/cpu/attention_kernel_avx2.cc
  ${CMAKE_CURRENT_LIST_DIR}/cpu/attention_kernel_avx512.cc
  PROPERTIES COMPILE_OPTIONS "-ffp-contract=fast;-fno-trapping-math")
# Its loops become vector code only where a compare need not trap.
set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/cpu/quantize_kernels.cc
                            PROPERTIES COMPILE_OPTIONS -fno-trapping-math)
