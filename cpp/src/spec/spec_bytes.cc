#include "pagedkv/spec/spec_bytes.h"

#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace pagedkv {
namespace {

template <typename Integer>
void put(ByteWriter& writer, std::optional<Integer> value) {
  writer.put_uint(value.has_value());
  if (value) writer.put_int(*value);
}

template <typename Integer>
std::optional<Integer> get_optional(ByteReader& reader) {
  if (!reader.get_bool()) return std::nullopt;
  return reader.get_int_as<Integer>();
}

std::int32_t get_int32(ByteReader& reader) { return reader.get_int_as<std::int32_t>(); }

void put(ByteWriter& writer, const AttentionLayout& layout) {
  writer.put_int(layout.page_size);
  writer.put_int(layout.num_kv_heads);
  writer.put_int(layout.head_size);
  writer.put_text(layout.dtype.name());
  writer.put_uint(layout.use_mla);
  put(writer, layout.head_size_v);
  put(writer, layout.page_size_padded);
}

AttentionLayout get_layout(ByteReader& reader) {
  const std::int32_t page_size = get_int32(reader);
  const std::int32_t num_kv_heads = get_int32(reader);
  const std::int32_t head_size = get_int32(reader);
  AttentionLayout layout{page_size, num_kv_heads, head_size, DType(reader.get_text())};
  layout.use_mla = reader.get_bool();
  layout.head_size_v = get_optional<std::int32_t>(reader);
  layout.page_size_padded = get_optional<std::int64_t>(reader);
  return layout;
}

// Each type: `put_fields`, and `get_fields` of the same.

void put_fields(ByteWriter& writer, const FullAttentionSpec& spec) {
  put(writer, spec.layout());
  put(writer, spec.sliding_window());
  put(writer, spec.attention_chunk_size());
}

FullAttentionSpec get_fields(ByteReader& reader, std::type_identity<FullAttentionSpec>) {
  const AttentionLayout layout = get_layout(reader);
  const auto window = get_optional<std::int32_t>(reader);
  return FullAttentionSpec(layout, window, get_optional<std::int32_t>(reader));
}

void put_fields(ByteWriter& writer, const SinkFullAttentionSpec& spec) {
  put(writer, spec.layout());
  writer.put_int(spec.sink_len());
  put(writer, spec.sliding_window());
  put(writer, spec.attention_chunk_size());
}

SinkFullAttentionSpec get_fields(ByteReader& reader, std::type_identity<SinkFullAttentionSpec>) {
  const AttentionLayout layout = get_layout(reader);
  const std::int32_t sink_len = get_int32(reader);
  const auto window = get_optional<std::int32_t>(reader);
  return SinkFullAttentionSpec(layout, sink_len, window, get_optional<std::int32_t>(reader));
}

void put_fields(ByteWriter& writer, const SlidingWindowSpec& spec) {
  put(writer, spec.layout());
  writer.put_int(spec.sliding_window());
}

SlidingWindowSpec get_fields(ByteReader& reader, std::type_identity<SlidingWindowSpec>) {
  const AttentionLayout layout = get_layout(reader);
  return SlidingWindowSpec(layout, get_int32(reader));
}

void put_fields(ByteWriter& writer, const ChunkedLocalAttentionSpec& spec) {
  put(writer, spec.layout());
  writer.put_int(spec.attention_chunk_size());
}

ChunkedLocalAttentionSpec get_fields(ByteReader& reader,
                                     std::type_identity<ChunkedLocalAttentionSpec>) {
  const AttentionLayout layout = get_layout(reader);
  return ChunkedLocalAttentionSpec(layout, get_int32(reader));
}

void put_fields(ByteWriter& writer, const CrossAttentionSpec& spec) { put(writer, spec.layout()); }

CrossAttentionSpec get_fields(ByteReader& reader, std::type_identity<CrossAttentionSpec>) {
  return CrossAttentionSpec(get_layout(reader));
}

void put_fields(ByteWriter& writer, const MambaSpec& spec) {
  writer.put_int(spec.page_size());
  writer.put_uint(spec.states().size());
  for (const StateArray& state : spec.states()) {
    writer.put_ints(state.shape);
    writer.put_text(state.dtype.name());
  }
  put(writer, spec.page_size_padded());
  writer.put_text(to_string(spec.cache_mode()));
  writer.put_int(spec.num_speculative_pages());
}

MambaSpec get_fields(ByteReader& reader, std::type_identity<MambaSpec>) {
  const std::int32_t page_size = get_int32(reader);
  std::vector<StateArray> states;
  for (std::size_t left = reader.get_count(); left > 0; --left) {
    std::vector<std::int32_t> shape = reader.get_ints();
    states.push_back({std::move(shape), DType(reader.get_text())});
  }
  const auto padded = get_optional<std::int64_t>(reader);
  const MambaCacheMode mode = mamba_cache_mode(reader.get_text());
  return MambaSpec(page_size, std::move(states), padded, mode, get_int32(reader));
}

template <typename... Specs>
AnyCacheSpec get_named(ByteReader& reader, const std::string& name,
                       std::type_identity<std::variant<Specs...>>) {
  std::optional<AnyCacheSpec> spec;
  const auto found = [&]<typename Spec>(std::type_identity<Spec> type) {
    if (name == Spec::kName) spec.emplace(get_fields(reader, type));
    return spec.has_value();
  };
  if ((found(std::type_identity<Specs>()) || ...)) return *spec;
  reader.fail("there is no spec '", name, "'");
}

}  // namespace

void put_spec(ByteWriter& writer, const AnyCacheSpec& spec) {
  writer.put_text(name_of(spec));
  std::visit([&](const auto& each) { put_fields(writer, each); }, spec);
}

AnyCacheSpec get_spec(ByteReader& reader) {
  const std::string name = reader.get_text();
  return get_named(reader, name, std::type_identity<AnyCacheSpec>());
}

}  // namespace pagedkv
