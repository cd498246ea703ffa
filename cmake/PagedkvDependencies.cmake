# How each dependency is found, in order: installed, local sources, download.
include_guard()
include(FetchContent)

# Provides GTest::gtest_main and GTest::gmock.
macro(pagedkv_find_googletest)
  find_package(GTest 1.12 QUIET)
  if(NOT GTest_FOUND)
    if(NOT FETCHCONTENT_SOURCE_DIR_GOOGLETEST AND EXISTS /usr/src/googletest/CMakeLists.txt)
      set(FETCHCONTENT_SOURCE_DIR_GOOGLETEST /usr/src/googletest) # Debian's googletest package
    endif()
    if(NOT FETCHCONTENT_SOURCE_DIR_GOOGLETEST AND NOT PAGEDKV_DOWNLOAD_DEPS)
      message(
        FATAL_ERROR
          "GoogleTest was not found and PAGEDKV_DOWNLOAD_DEPS is OFF. Install it "
          "(Debian: apt-get install libgtest-dev libgmock-dev), point "
          "FETCHCONTENT_SOURCE_DIR_GOOGLETEST at its sources, or set PAGEDKV_DOWNLOAD_DEPS=ON.")
    endif()
    FetchContent_Declare(
      googletest
      URL https://github.com/google/googletest/releases/download/v1.17.0/googletest-1.17.0.tar.gz
      URL_HASH SHA256=65fab701d9829d38cb77c14acdc431d2108bfdbf8979e40eb8ae567edf10b27c)
    set(INSTALL_GTEST OFF)
    FetchContent_MakeAvailable(googletest)
    if(NOT TARGET GTest::gmock)
      add_library(GTest::gmock ALIAS gmock)
      add_library(GTest::gtest_main ALIAS gtest_main)
    endif()
  endif()
  include(GoogleTest)
endmacro()

# Provides pagedkv_xla_ffi: the headers in PAGEDKV_XLA_FFI_INCLUDE, which ship inside jaxlib.
function(pagedkv_add_xla_ffi)
  if(NOT TARGET pagedkv_xla_ffi)
    add_library(pagedkv_xla_ffi INTERFACE)
    # SYSTEM: these headers are not clean under -Wshadow and -Wconversion.
    target_include_directories(pagedkv_xla_ffi SYSTEM INTERFACE ${PAGEDKV_XLA_FFI_INCLUDE})
  endif()
endfunction()

# Provides nanobind_add_module and pagedkv_xla_ffi.
macro(pagedkv_find_python)
  find_package(Python 3.11 REQUIRED COMPONENTS Interpreter Development.Module NumPy
               OPTIONAL_COMPONENTS Development.SABIModule)
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -m nanobind --cmake_dir
    OUTPUT_STRIP_TRAILING_WHITESPACE
    OUTPUT_VARIABLE nanobind_ROOT COMMAND_ERROR_IS_FATAL ANY)
  find_package(nanobind CONFIG REQUIRED)
  # The headers of the oldest jaxlib we support, which pyproject.toml pins: a handler built with
  # newer ones is refused by older runtimes, and takes their whole CPU backend down.
  if(NOT PAGEDKV_XLA_FFI_INCLUDE)
    execute_process(
      COMMAND "${Python_EXECUTABLE}" -c
              "import importlib.util as u; print(u.find_spec('jaxlib').submodule_search_locations[0] + '/include')"
      OUTPUT_STRIP_TRAILING_WHITESPACE
      OUTPUT_VARIABLE PAGEDKV_XLA_FFI_INCLUDE COMMAND_ERROR_IS_FATAL ANY)
  endif()
  pagedkv_add_xla_ffi()
endmacro()

# Sets PAGEDKV_HAS_CUDA, and enables the language if so. PAGEDKV_CUDA is OFF, ON, or AUTO: where there
# is an nvcc that works and knows C++20.
macro(pagedkv_find_cuda)
  set(PAGEDKV_HAS_CUDA OFF)
  if(NOT PAGEDKV_CUDA STREQUAL "OFF")
    include(CheckLanguage)
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
      set(CMAKE_CUDA_ARCHITECTURES ${PAGEDKV_CUDA_ARCHITECTURES})
      enable_language(CUDA)
      if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.0)
        set(PAGEDKV_HAS_CUDA ON)
      endif()
    endif()
    if(PAGEDKV_CUDA STREQUAL "ON" AND NOT PAGEDKV_HAS_CUDA)
      message(FATAL_ERROR "PAGEDKV_CUDA is ON, but no nvcc 12 or newer was found that works: put it on "
                          "the PATH or set CUDACXX.")
    endif()
  endif()
endmacro()
