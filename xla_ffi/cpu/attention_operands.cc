#include "attention_operands.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "broadcast.h"
#include "number_types.h"
#include "pagedkv/math.h"
#include "quantize_kernels.h"

namespace pagedkv {
namespace {

constexpr std::string_view kPools[] = {"key_pages", "value_pages"};
constexpr std::string_view kScales[] = {"key_scales", "value_scales"};
constexpr size_t kRowRank = 3;  // tokens, heads, elements

// Fails unless `buffer` is int32 of shape `[*batch, *sizes]`, its batch axes 1 or those of the
// batch.
ffi::Error check_ints(std::string_view operation, std::string_view name,
                      const ffi::AnyBuffer& buffer, Shape batch, Shape sizes) {
  if (auto error = check_int32(operation, name, buffer); error.failure()) return error;
  const Shape axes = shape(buffer);
  if (axes.size() == batch.size() + sizes.size() &&
      broadcasts_to(axes.first(batch.size()), batch) &&
      std::ranges::equal(axes.last(sizes.size()), sizes)) {
    return ffi::Error::Success();
  }
  return invalid_argument(operation, name, " must have the shape ", Printed{sizes},
                          " behind batch axes that broadcast to ", Printed{batch}, ", got ",
                          Printed{axes});
}

ffi::Error check_batch_arrays(std::string_view operation, const AttentionOperands& operands,
                              Shape batch) {
  const Shape table = shape(operands.page_table);
  if (auto error = check_int32(operation, "page_table", operands.page_table); error.failure()) {
    return error;
  }
  if (table.size() != batch.size() + 2 || !broadcasts_to(table.first(batch.size()), batch)) {
    return invalid_argument(operation,
                            "page_table must have shape [requests, width] behind batch "
                            "axes that broadcast to ",
                            Printed{batch}, ", got ", Printed{table});
  }
  const int64_t num_requests = table[batch.size()];
  const std::array starts = {saturating_add<int64_t>(num_requests, 1)}, lens = {num_requests};
  const Shape scalar;
  const std::tuple<std::string_view, const ffi::AnyBuffer&, Shape> wanted[] = {
      {"query_starts", operands.query_starts, starts},
      {"context_lens", operands.context_lens, lens},
      {"layer", operands.layer, scalar},
      {"sliding_window", operands.window, scalar},
      {"attention_chunk_size", operands.chunk, scalar},
      {"num_sink_tokens", operands.num_sink_tokens, scalar}};
  for (const auto& [name, buffer, sizes] : wanted) {
    if (auto error = check_ints(operation, name, buffer, batch, sizes); error.failure()) {
      return error;
    }
  }
  return ffi::Error::Success();
}

// Fails unless `rows` is floats of shape `[*batch, tokens, heads, dim]`, not too many to count.
ffi::Error check_rows(std::string_view operation, std::string_view name, const ffi::AnyBuffer& rows,
                      Shape batch) {
  if (!float_type(rows.element_type())) {
    return invalid_argument(operation, name, " must be F32, F16 or BF16, got ",
                            rows.element_type());
  }
  const Shape axes = shape(rows);
  if (axes.size() != batch.size() + kRowRank || !broadcasts_to(axes.first(batch.size()), batch)) {
    return invalid_argument(operation, name,
                            " must have shape [tokens, heads, dim] behind batch "
                            "axes that broadcast to ",
                            Printed{batch}, ", got ", Printed{axes});
  }
  // Twice, and four bytes each: rows are padded, and become float32.
  if (num_bits(axes, 64)) return ffi::Error::Success();
  return invalid_argument(operation, name, " of shape ", Printed{axes},
                          " has more bits than int64 can count");
}

ffi::Error check_query(std::string_view operation, const AttentionOperands& operands, Shape batch) {
  if (auto error = check_rows(operation, "query", operands.query, batch); error.failure()) {
    return error;
  }
  if (auto error = check_rows(operation, "output", operands.output, batch); error.failure()) {
    return error;
  }
  const Shape query = shape(operands.query), output = shape(operands.output);
  if (operands.output.element_type() != operands.query.element_type()) {
    return invalid_argument(operation, "output must be ", operands.query.element_type(),
                            " as query, got ", operands.output.element_type());
  }
  const Shape rows = query.last(kRowRank).first(2);
  if (!std::ranges::equal(output.first(batch.size()), batch) ||
      !std::ranges::equal(output.last(kRowRank).first(2), rows)) {
    return invalid_argument(operation, "output must have the batch ", Printed{batch},
                            " and the tokens and heads of query, ", Printed{query}, ", got ",
                            Printed{output});
  }
  const ffi::AnyBuffer& sinks = operands.sinks;
  if (sinks.element_type() != ffi::F32) {
    return invalid_argument(operation, "sinks must be F32, got ", sinks.element_type());
  }
  const Shape axes = shape(sinks);
  if (axes.size() == batch.size() + 1 && broadcasts_to(axes.first(batch.size()), batch) &&
      (axes.back() == 0 || axes.back() == rows[1])) {
    return ffi::Error::Success();
  }
  return invalid_argument(operation, "sinks must have shape [", rows[1],
                          "] or [0] behind batch axes that broadcast to ", Printed{batch}, ", got ",
                          Printed{axes});
}

ffi::ErrorOr<PoolGeometry> check_pool(std::string_view operation, size_t i,
                                      const AttentionOperands& operands, const KvLayout& layout,
                                      bool layered, Shape batch) {
  const ffi::AnyBuffer& pages = operands.pools[i];
  const auto pool = pool_geometry(operation, kPools[i], pages, layout, batch.size(), layered);
  if (!pool) return pool;
  if (auto error = check_batch(operation, kPools[i], shape(pages), batch); error.failure()) {
    return ffi::Unexpected(std::move(error));
  }
  const ffi::DataType dtype = pages.element_type();
  if (dtype != operands.pools[0].element_type()) {
    return ffi::Unexpected(invalid_argument(operation, kPools[i], " must be ",
                                            operands.pools[0].element_type(), " as key_pages, got ",
                                            dtype));
  }
  const bool is_stored =
      operands.scales.empty() ? float_type(dtype).has_value() : code_type(dtype).has_value();
  if (is_stored) return pool;
  return ffi::Unexpected(invalid_argument(
      operation, kPools[i], " must be F32, F16 or BF16, or S8, S4, F8E4M3FN or F8E5M2 with scales",
      ", got ", dtype, operands.scales.empty() ? " without" : " with", " scales"));
}

// Requires a dtype that check_pool lets pass.
RowFormat row_format(ffi::DataType dtype) {
  switch (dtype) {
    case ffi::F16:
      return RowFormat::kF16;
    case ffi::BF16:
      return RowFormat::kBf16;
    case ffi::S8:
      return RowFormat::kInt8;
    case ffi::S4:
      return RowFormat::kInt4;
    case ffi::F8E4M3FN:
      return RowFormat::kE4m3;
    case ffi::F8E5M2:
      return RowFormat::kE5m2;
    default:
      return RowFormat::kF32;
  }
}

PagedRows paged_rows(const RowGeometry& row, const ffi::AnyBuffer& pages, int64_t dim) {
  return {.data = nullptr,
          .dim = dim,
          .page_stride = row.page_stride,
          .token_stride = row.token_stride,
          .head_stride = row.run_stride,
          .element_bytes = row.element_bytes,
          .element_stride = row.element_stride,
          .format = row_format(pages.element_type()),
          .scales = nullptr,
          .scale_page_stride = 0,
          .scale_token_stride = 0,
          .scale_head_stride = 0};
}

void set_scales(PagedRows& rows, const ScaleGeometry& scales) {
  rows.scale_page_stride = scales.page_stride;
  rows.scale_token_stride = scales.token_stride;
  rows.scale_head_stride = scales.head_stride;
}

}  // namespace

ffi::ErrorOr<CheckedAttention> check_attention(std::string_view operation,
                                               const AttentionOperands& operands,
                                               const KvLayout& layout, bool layered,
                                               int64_t group_size) {
  const auto refuse = [](ffi::Error error) { return ffi::Unexpected(std::move(error)); };
  const Shape batch = shape(operands.num_dropped);
  if (auto error = check_int32(operation, "num_dropped", operands.num_dropped); error.failure()) {
    return refuse(std::move(error));
  }
  if (auto error = check_batch_arrays(operation, operands, batch); error.failure()) {
    return refuse(std::move(error));
  }
  if (auto error = check_query(operation, operands, batch); error.failure()) {
    return refuse(std::move(error));
  }
  CheckedAttention checked{};
  for (size_t i = 0; i < operands.pools.size(); ++i) {
    const auto pool = check_pool(operation, i, operands, layout, layered, batch);
    if (!pool) return refuse(pool.error());
    if (i == 0) checked.pools.fill(*pool);
    checked.pools[i] = *pool;
    if (operands.scales.empty()) continue;
    const auto scales = scale_geometry(operation, kScales[i], operands.scales[i], operands.pools[i],
                                       layout, batch.size(), layered);
    if (!scales) return refuse(scales.error());
    if (auto error = check_batch(operation, kScales[i], shape(operands.scales[i]), batch);
        error.failure()) {
      return refuse(std::move(error));
    }
    if (i == 0) checked.scales.fill(*scales);
    checked.scales[i] = *scales;
  }
  const PoolGeometry &keys = checked.pools[0], &values = checked.pools[1];
  for (const AxisRole role : {AxisRole::kPages, AxisRole::kTokens}) {
    if (values.size(role) == keys.size(role) && values.num_layers == keys.num_layers) continue;
    return refuse(invalid_argument(operation, "value_pages must have the pages of key_pages, ",
                                   Printed{shape(operands.pools.front())}, ", got ",
                                   Printed{shape(operands.pools.back())}));
  }
  const Shape query = shape(operands.query).last(kRowRank);
  const int64_t heads = query[1], key_dim = query[2], value_dim = shape(operands.output).back();
  if (group_size < 1 || heads % group_size != 0) {
    return refuse(invalid_argument(operation, "query must have a multiple of group_size ",
                                   group_size, " heads, got ", heads));
  }
  const int64_t kv_heads = heads / group_size;
  const Shape table = shape(operands.page_table);
  checked.num_tokens = query[0];
  checked.num_requests = table[batch.size()];
  checked.width = table.back();
  checked.layer = {.keys = {},
                   .values = {},
                   .values_are_keys = layout.sharing == Sharing::kLatent,
                   .num_pages = keys.size(AxisRole::kPages),
                   .page_size = keys.size(AxisRole::kTokens),
                   .num_kv_heads = kv_heads,
                   .group_size = group_size,
                   .query_type = *float_type(operands.query.element_type()),
                   .scale = 1,
                   .soft_cap = 0,
                   .sinks = nullptr,
                   .mask = {}};
  if (num_elements(operands.output) == 0) return checked;  // no row is read

  if (!layout.has_heads() && kv_heads != 1) {
    return refuse(invalid_argument(operation, "layout ", layout.name,
                                   " has one kv head: group_size must be ", heads, ", got ",
                                   group_size));
  }
  const auto key_row = row_geometry(operation, "query", keys, layout, 0, kv_heads, key_dim, true);
  if (!key_row) return refuse(key_row.error());
  checked.first.fill(key_row->first);
  checked.layer.keys = paged_rows(*key_row, operands.pools.front(), key_dim);
  if (checked.layer.values_are_keys) {
    if (value_dim > key_dim) {
      return refuse(invalid_argument(operation, "output must have at most the ", key_dim,
                                     " elements of a key in layout ", layout.name, ", got ",
                                     value_dim));
    }
    checked.layer.values = checked.layer.keys;
    checked.layer.values.dim = value_dim;
  } else {
    const auto value_row =
        row_geometry(operation, "output", values, layout, 1, kv_heads, value_dim, true);
    if (!value_row) return refuse(value_row.error());
    checked.first[1] = value_row->first;
    checked.layer.values = paged_rows(*value_row, operands.pools.back(), value_dim);
  }
  if (!operands.scales.empty()) {
    set_scales(checked.layer.keys, checked.scales[0]);
    set_scales(checked.layer.values, checked.scales[1]);
  }
  return checked;
}

}  // namespace pagedkv
