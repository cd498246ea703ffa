#pragma once

#include <nanobind/nanobind.h>

#include <span>

#include "xla/ffi/api/c_api.h"

/// What the extension of every platform tells Python about its handlers.
namespace pagedkv {

/// A handler under the name it is registered with.
struct FfiTarget {
  const char* name;
  XLA_FFI_Handler* handler;
};

/// Defines `registrations` and `api_version`. `targets` must live as long as the module.
inline void bind_targets(nanobind::module_& m, std::span<const FfiTarget> targets) {
  namespace nb = nanobind;
  m.def(
      "registrations",
      [targets] {
        nb::dict capsules;
        for (const auto& [name, handler] : targets) {
          capsules[name] = nb::capsule(reinterpret_cast<void*>(handler));
        }
        return capsules;
      },
      nb::sig("def registrations() -> dict[str, object]"),
      "Every FFI target of this platform by name, as jax.ffi.register_ffi_target takes it.");
  m.def(
      "api_version", [] { return nb::make_tuple(XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR); },
      nb::sig("def api_version() -> tuple[int, int]"),
      "(major, minor) of the XLA FFI API this module was built with.");
}

}  // namespace pagedkv
