#include "ffi_cuda.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "cuda/handlers.h"

namespace pagedkv::fuzz {
namespace {

constexpr std::array<std::pair<std::string_view, XLA_FFI_Handler*>, 10> kHandlers = {{
    {"write_kv", PagedkvCudaWriteKv},
    {"write_kv_quantized", PagedkvCudaWriteKvQuantized},
    {"gather_pages", PagedkvCudaGatherPages},
    {"gather_dequantized", PagedkvCudaGatherDequantized},
    {"gather_into", PagedkvCudaGatherInto},
    {"gather_through", PagedkvCudaGatherThrough},
    {"scatter_pages", PagedkvCudaScatterPages},
    {"copy_pages", PagedkvCudaCopyPages},
    {"pages_to_rows", PagedkvCudaPagesToRows},
    {"rows_to_pages", PagedkvCudaRowsToPages},
}};

Call dropping(Call call) {
  for (Attribute& attribute : call.attributes) {
    if (attribute.name == "mode") attribute.value = std::string("drop");
  }
  return call;
}

}  // namespace

bool compare_with_cuda(const Call& call, const Outcome& outcome,
                       const std::function<void(const std::string&)>& fail) {
  const auto* found = std::ranges::find(kHandlers, call.target,
                                        &std::pair<std::string_view, XLA_FFI_Handler*>::first);
  if (found == kHandlers.end()) return false;
  // The CPU sees the ids: where one is out of range it may raise, and it may have no memory left.
  if (outcome.code == XLA_FFI_Error_Code_RESOURCE_EXHAUSTED) return false;
  const Outcome wanted =
      outcome.code == XLA_FFI_Error_Code_OUT_OF_RANGE ? run(dropping(call)) : outcome;
  Call on_cuda = call;
  on_cuda.handler = found->second;
  const Outcome made = run(on_cuda);
  if (made.message.find(" on CUDA, got ") != std::string::npos) return true;  // its own limits
  const bool is_ours = wanted.message.starts_with('[');
  if (made.code != wanted.code || (is_ours && made.message != wanted.message)) {
    fail("the CPU says \"" + wanted.message + "\", CUDA \"" + made.message + "\"");
  }
  for (size_t i = 0; i < made.operands.size(); ++i) {
    if (made.operands[i] != wanted.operands[i]) {
      fail("CUDA made another operand " + std::to_string(i));
    }
  }
  for (size_t i = 0; i < made.results.size(); ++i) {
    if (made.results[i] != wanted.results[i]) {
      fail("CUDA made another result " + std::to_string(i));
    }
  }
  return true;
}

}  // namespace pagedkv::fuzz
