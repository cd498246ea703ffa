# Flags every target of ours shares, and the one-line declarations used in the subdirectories.
include_guard()

add_library(pagedkv_flags INTERFACE)
target_compile_features(pagedkv_flags INTERFACE cxx_std_20)
target_compile_options(
  pagedkv_flags
  INTERFACE $<$<COMPILE_LANG_AND_ID:CXX,GNU,Clang,AppleClang>:-Wall -Wextra -Wshadow -Wconversion
            -Wold-style-cast -Wnon-virtual-dtor>
            # GCC 12 sees overlapping copies where texts are joined (its bug 105651).
            $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict>
            $<$<AND:$<BOOL:${PAGEDKV_WERROR}>,$<COMPILE_LANGUAGE:CXX>>:-Werror>)
if(PAGEDKV_SANITIZE)
  target_compile_options(
    pagedkv_flags INTERFACE -fsanitize=${PAGEDKV_SANITIZE} -fno-sanitize-recover=all
                            -fno-omit-frame-pointer)
  target_link_options(pagedkv_flags INTERFACE -fsanitize=${PAGEDKV_SANITIZE})
endif()

# pagedkv_test(NAME): adds tests/cpp/NAME.cc to the tests.
function(pagedkv_test name)
  target_sources(pagedkv_tests PRIVATE ${name}.cc)
endfunction()

# pagedkv_benchmark(NAME): builds benchmarks/cpp/NAME.cc.
function(pagedkv_benchmark name)
  add_executable(${name} ${name}.cc)
  target_link_libraries(${name} PRIVATE pagedkv::core pagedkv_flags benchmark::benchmark_main)
endfunction()
