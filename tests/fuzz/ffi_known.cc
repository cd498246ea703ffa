#include "ffi_known.h"

#include <cstring>

#include "handlers.h"

namespace pagedkv::fuzz {
namespace {

constexpr int64_t kHuge = int64_t{1} << 32, kHalfOfAll = int64_t{1} << 62;
constexpr int64_t kHugeRow = int64_t{1} << 56;

// Zeros, or 32-bit values all alike. The null data of an empty array is part of it.
template <typename Value>
Tensor filled(XLA_FFI_DataType dtype, std::vector<int64_t> shape, Value value) {
  static_assert(sizeof(value) == 4);
  Bytes contents(array_bytes(dtype, shape).value_or(0));
  for (size_t at = 0; at + sizeof(value) <= contents.size(); at += sizeof(value)) {
    std::memcpy(contents.data() + at, &value, sizeof(value));
  }
  return {.dtype = dtype, .shape = std::move(shape), .contents = std::move(contents)};
}

Tensor ids(std::vector<int64_t> shape, int32_t id) {
  return filled(XLA_FFI_DataType_S32, std::move(shape), id);
}

Tensor floats(std::vector<int64_t> shape, float value) {
  return filled(XLA_FFI_DataType_F32, std::move(shape), value);
}

Tensor tokens(std::vector<int64_t> shape) {
  return {.dtype = XLA_FFI_DataType_TOKEN, .shape = std::move(shape), .contents = {}};
}

Tensor codes(std::vector<int64_t> shape) {
  return filled(XLA_FFI_DataType_S8, std::move(shape), int32_t{0});
}

Call write(std::string_view target, XLA_FFI_Handler* handler, std::string layout,
           std::vector<Tensor> operands, size_t num_pools) {
  Call call{.target = target,
            .operation = "write_kv",
            .handler = handler,
            .operands = std::move(operands),
            .results = {ids({}, 7)},
            .aliases = {kNoAlias},
            .attributes = {
                {"layout", std::move(layout)}, {"layered", false}, {"mode", std::string("drop")}}};
  for (size_t i = 0; i < num_pools; ++i) {
    call.results.push_back(call.operands[2 + i]);
    call.aliases.push_back(2 + i);
  }
  return call;
}

Call gather(std::string_view target, XLA_FFI_Handler* handler, std::vector<Tensor> operands,
            Tensor rows, Attribute where) {
  return {.target = target,
          .operation = "gather_pages",
          .handler = handler,
          .operands = std::move(operands),
          .results = {std::move(rows), ids({}, 7)},
          .aliases = {kNoAlias, kNoAlias},
          .attributes = {std::move(where), {"layered", false}, {"mode", std::string("drop")}}};
}

Call copy(std::vector<Tensor> operands, int64_t page_axis) {
  Call call{.target = "copy_pages",
            .operation = "copy_pages",
            .handler = PagedkvCopyPages,
            .operands = std::move(operands),
            .results = {ids({}, 7)},
            .aliases = {kNoAlias},
            .attributes = {{"page_axis", page_axis}, {"mode", std::string("drop")}}};
  for (size_t i = 2; i < call.operands.size(); ++i) {
    call.results.push_back(call.operands[i]);
    call.aliases.push_back(i);
  }
  return call;
}

}  // namespace

std::vector<Call> known_calls() {
  return {
      // Strides of an empty pool overflowed.
      write("write_kv", PagedkvWriteKv, "LATENT",
            {ids({1}, 0), ids({}, 0), floats({0, kHalfOfAll, 4}, 0), floats({1, 4}, 0)}, 1),
      // So did those of a pool of tokens, which have no bits.
      write("write_kv", PagedkvWriteKv, "LATENT",
            {ids({1}, 0), ids({}, 0), tokens({0, kHalfOfAll, 4}), tokens({1, 4})}, 1),
      // So did the bytes of a layer.
      gather("gather_pages", PagedkvGatherPages,
             {floats({kHalfOfAll, 0, kHalfOfAll}, 0), ids({0}, 0), ids({}, 0)},
             floats({0, 0, kHalfOfAll}, 0), {"page_axis", int64_t{0}}),
      // Copied 2^32 times nothing, from a null pointer to another.
      write("write_kv", PagedkvWriteKv, "SIDE_BY_SIDE",
            {ids({1}, 0), ids({}, 0), floats({2, 1, kHuge, 1, 0}, 0), floats({1, kHuge, 0}, 0),
             floats({1, kHuge, 0}, 0)},
            1),
      // Set null to zeros.
      gather("gather_dequantized", PagedkvGatherDequantized,
             {codes({2, 1, 0}), floats({2, 1}, 1), ids({1}, -2), ids({}, 0)}, floats({1, 1, 0}, 0),
             {"layout", std::string("LATENT")}),
      // Made a list of all rows of a page that is not there.
      gather("gather_dequantized", PagedkvGatherDequantized,
             {codes({0, kHuge / 4, 4}), floats({0, kHuge / 4}, 1), ids({0}, 0), ids({}, 0)},
             floats({0, kHuge / 4, 4}, 0), {"layout", std::string("LATENT")}),
      // Made room for a row of a call without rows.
      write("write_kv_quantized", PagedkvWriteKvQuantized, "LATENT",
            {ids({0}, 0), ids({}, 0), codes({0, 1, kHugeRow}), floats({0, 1}, 1),
             floats({0, kHugeRow}, 1)},
            2),
      // Had a GPU copy each of 2^62 bytes of a page that is not there.
      copy({ids({1}, 0), ids({1}, 0), codes({kHalfOfAll, 0})}, 1),
      // Had it visit 2^56 heads of no tokens.
      write("write_kv_quantized", PagedkvWriteKvQuantized, "NHD",
            {ids({1}, 0), ids({}, 0), codes({0, 1, kHugeRow, 0}), codes({0, 1, kHugeRow, 0}),
             floats({0, 1, kHugeRow}, 1), floats({0, 1, kHugeRow}, 1), floats({1, kHugeRow, 0}, 1),
             floats({1, kHugeRow, 0}, 1)},
            4),
      // Doubled a scale below zero until it would be large enough.
      write("write_kv_quantized", PagedkvWriteKvQuantized, "LATENT",
            {ids({1}, 1), ids({}, 0), codes({1, 2, 4}), floats({1}, -1), floats({1, 4}, 1)}, 2),
  };
}

}  // namespace pagedkv::fuzz
