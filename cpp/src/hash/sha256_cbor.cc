#include "sha256_cbor.h"

#include <array>
#include <vector>

#include "pagedkv/hash/cbor.h"
#include "pagedkv/hash/sha256.h"

namespace pagedkv::sha256_cbor {
namespace {

// Longest message that is encoded on the stack: a page of 170 tokens, whatever they are.
constexpr std::size_t kStackBytes = 1024;

// Room for a message of at most `message_bytes`, its padding, and what the writer may overshoot.
constexpr std::size_t room_for(std::size_t message_bytes) {
  return sha256_padded_bytes(message_bytes) + CborWriter::kSlackBytes;
}

// SHA-256 of what `write(writer)` writes, which is at most `max_bytes`.
template <typename Write>
PageHash hash_written(std::size_t max_bytes, Write write) {
  const auto hash_in = [&](std::span<std::byte> buffer) {
    CborWriter writer(buffer);
    write(writer);
    return PageHash{sha256_in_place(buffer, writer.size())};
  };
  if (room_for(max_bytes) > kStackBytes) {
    std::vector<std::byte> buffer(room_for(max_bytes));
    return hash_in(buffer);
  }
  std::array<std::byte, kStackBytes> buffer;
  return hash_in(buffer);
}

}  // namespace

PageHash none_hash(std::string_view seed) {
  return hash_written(CborWriter::kMaxHeadBytes + seed.size(),
                      [&](CborWriter& writer) { writer.write_text(seed); });
}

PageHash hash_page(const PageHash& parent, std::span<const TokenId> tokens,
                   std::span<const std::byte> extra) {
  constexpr std::size_t kMaxFixedBytes =
      3 * CborWriter::kMaxHeadBytes + sizeof(PageHash) + sizeof(std::byte);
  const std::size_t max_bytes =
      kMaxFixedBytes + CborWriter::kMaxInt32Bytes * tokens.size() + extra.size();
  return hash_written(max_bytes, [&](CborWriter& writer) {
    writer.write_array_head(3);
    writer.write_bytes(parent.bytes);
    writer.write_ints(tokens);
    extra.empty() ? writer.write_null() : writer.write_encoded(extra);
  });
}

}  // namespace pagedkv::sha256_cbor
