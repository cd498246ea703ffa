#include <nanobind/nanobind.h>

#include <string_view>

#include "attention_kernel.h"
#include "handlers.h"
#include "targets.h"

namespace nb = nanobind;

namespace {

constexpr pagedkv::FfiTarget kTargets[] = {
    {"pagedkv.write_kv.v2", PagedkvWriteKv},
    {"pagedkv.write_kv_quantized.v1", PagedkvWriteKvQuantized},
    {"pagedkv.gather_pages.v2", PagedkvGatherPages},
    {"pagedkv.gather_dequantized.v1", PagedkvGatherDequantized},
    {"pagedkv.gather_into.v1", PagedkvGatherInto},
    {"pagedkv.gather_through.v1", PagedkvGatherThrough},
    {"pagedkv.scatter_pages.v1", PagedkvScatterPages},
    {"pagedkv.copy_pages.v1", PagedkvCopyPages},
    {"pagedkv.pages_to_rows.v1", PagedkvPagesToRows},
    {"pagedkv.rows_to_pages.v1", PagedkvRowsToPages},
    {"pagedkv.paged_attention.v2", PagedkvPagedAttention},
};

}  // namespace

NB_MODULE(_ffi_cpu, m) {
  m.doc() = "XLA FFI handlers of pagedkv for the CPU platform.";
  pagedkv::bind_targets(m, kTargets);
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
