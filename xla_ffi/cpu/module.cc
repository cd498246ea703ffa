#include <nanobind/nanobind.h>

#include "handlers.h"

namespace nb = nanobind;

NB_MODULE(_ffi_cpu, m) {
  m.doc() = "XLA FFI handlers of pagedkv for the CPU platform.";
  m.def("registrations", [] { return nb::dict(); });
}
