#include <nanobind/nanobind.h>

#include <string_view>

#include "attention_kernel.h"
#include "handlers.h"

namespace nb = nanobind;

namespace {

nb::capsule capsule(XLA_FFI_Handler* handler) {
  return nb::capsule(reinterpret_cast<void*>(handler));
}

}  // namespace

NB_MODULE(_ffi_cpu, m) {
  m.doc() = "XLA FFI handlers of pagedkv for the CPU platform.";
  m.def(
      "registrations",
      [] {
        nb::dict targets;
        targets["pagedkv.write_kv.v2"] = capsule(PagedkvWriteKv);
        targets["pagedkv.write_kv_quantized.v1"] = capsule(PagedkvWriteKvQuantized);
        targets["pagedkv.gather_pages.v2"] = capsule(PagedkvGatherPages);
        targets["pagedkv.gather_dequantized.v1"] = capsule(PagedkvGatherDequantized);
        targets["pagedkv.gather_into.v1"] = capsule(PagedkvGatherInto);
        targets["pagedkv.gather_through.v1"] = capsule(PagedkvGatherThrough);
        targets["pagedkv.scatter_pages.v1"] = capsule(PagedkvScatterPages);
        targets["pagedkv.copy_pages.v1"] = capsule(PagedkvCopyPages);
        targets["pagedkv.pages_to_rows.v1"] = capsule(PagedkvPagesToRows);
        targets["pagedkv.rows_to_pages.v1"] = capsule(PagedkvRowsToPages);
        targets["pagedkv.paged_attention.v2"] = capsule(PagedkvPagedAttention);
        return targets;
      },
      nb::sig("def registrations() -> dict[str, object]"),
      "Every FFI target of this platform by name, as jax.ffi.register_ffi_target takes it.");
  m.def(
      "api_version", [] { return nb::make_tuple(XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR); },
      nb::sig("def api_version() -> tuple[int, int]"),
      "(major, minor) of the XLA FFI API this module was built with.");
  m.def(
      "attention_instruction_sets",
      [] {
        nb::list names;
        for (const std::string_view name : pagedkv::attention_instruction_sets()) {
          names.append(nb::str(name.data(), name.size()));
        }
        return names;
      },
      nb::sig("def attention_instruction_sets() -> list[str]"),
      "What paged_attention can be compiled to on this CPU, the fastest first.");
}
