#include "sha256_cbor.h"

#include <array>
#include <cassert>
#include <vector>

#include "pagedkv/hash/cbor.h"
#include "pagedkv/hash/sha256.h"

namespace pagedkv::sha256_cbor {
namespace {

// Messages of up to about 170 tokens are encoded on the stack.
constexpr std::size_t kStackBytes = 1024;

// Bytes of a page's message that are neither tokens nor extra keys, at most: the heads of three
// arrays and strings, the parent, null.
constexpr std::size_t kMaxFixedBytes = 3 * CborWriter::kMaxHeadBytes + sizeof(PageHash) + 1;

PageHash hash_page_in(std::span<std::byte> buffer, const PageHash& parent,
                      std::span<const TokenId> tokens, std::span<const std::byte> extra) {
  constexpr PageHash kRoomForParent;
  CborWriter writer(buffer);
  writer.write_array_head(3);
  writer.write_bytes(kRoomForParent.bytes);
  assert(writer.size() == kSha256LinkOffset + sizeof(PageHash));
  writer.write_ints(tokens);
  extra.empty() ? writer.write_null() : writer.write_encoded(extra);
  return {sha256_linked(parent.bytes, buffer, writer.size())};
}

}  // namespace

PageHash none_hash(std::string_view seed) {
  std::vector<std::byte> buffer(CborWriter::kMaxHeadBytes + seed.size() + CborWriter::kSlackBytes);
  CborWriter writer(buffer);
  writer.write_text(seed);
  return {sha256(std::span(buffer).first(writer.size()))};
}

PageHash hash_page(const PageHash& parent, std::span<const TokenId> tokens,
                   std::span<const std::byte> extra) {
  const std::size_t max_bytes =
      kMaxFixedBytes + CborWriter::kMaxInt32Bytes * tokens.size() + extra.size();
  static_assert(kSha256MaxPaddingBytes >= CborWriter::kSlackBytes, "they overlap");
  const std::size_t buffer_bytes = max_bytes + kSha256MaxPaddingBytes;
  if (buffer_bytes > kStackBytes) {
    std::vector<std::byte> buffer(buffer_bytes);
    return hash_page_in(buffer, parent, tokens, extra);
  }
  std::array<std::byte, kStackBytes> buffer;
  return hash_page_in(buffer, parent, tokens, extra);
}

}  // namespace pagedkv::sha256_cbor
