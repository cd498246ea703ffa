# What the handlers of all platforms ask of their operands.
set(PAGEDKV_FFI_CHECKS_SOURCES kv_layout.cc page_checks.cc quantized_checks.cc scale_layout.cc
                               write_checks.cc write_plan.cc)
list(TRANSFORM PAGEDKV_FFI_CHECKS_SOURCES PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
