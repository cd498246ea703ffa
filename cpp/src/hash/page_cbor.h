#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "pagedkv/hash/cbor.h"
#include "pagedkv/hash/page_hash.h"
#include "pagedkv/types.h"
#include "with_buffer.h"

/// The canonical CBOR of what is hashed, which several algorithms share.
namespace pagedkv {

/// Most bytes that `write_page_cbor` needs, with what the writer stores beyond the end.
constexpr std::size_t max_page_cbor_bytes(std::size_t num_tokens, std::size_t extra_bytes) {
  constexpr std::size_t kHeadsAndNull = 3 * CborWriter::kMaxHeadBytes + 1;
  return kHeadsAndNull + sizeof(PageHash) + CborWriter::kMaxInt32Bytes * num_tokens + extra_bytes +
         CborWriter::kSlackBytes;
}

/// Writes `(parent, (tokens...), extra or null)`. Returns the number of bytes.
inline std::size_t write_page_cbor(std::span<std::byte> buffer, std::span<const std::byte> parent,
                                   std::span<const TokenId> tokens,
                                   std::span<const std::byte> extra) {
  CborWriter writer(buffer);
  writer.write_array_head(3);
  writer.write_bytes(parent);
  writer.write_ints(tokens);
  extra.empty() ? writer.write_null() : writer.write_encoded(extra);
  return writer.size();
}

/// Calls `hash` with the CBOR of `seed` as a text.
template <typename Hash>
auto hash_seed_cbor(std::string_view seed, Hash hash) {
  const std::size_t max_bytes = CborWriter::kMaxHeadBytes + seed.size() + CborWriter::kSlackBytes;
  return with_buffer(max_bytes, [&](std::span<std::byte> buffer) {
    CborWriter writer(buffer);
    writer.write_text(seed);
    return hash(std::span<const std::byte>(buffer.first(writer.size())));
  });
}

}  // namespace pagedkv
