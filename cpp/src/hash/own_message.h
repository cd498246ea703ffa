#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "pagedkv/hash/little_endian.h"
#include "pagedkv/hash/page_hash.h"
#include "pagedkv/types.h"
#include "with_buffer.h"

// The messages of our own formats, which are defined with `HashAlgorithm::kPagedkv`. `Digest` is
// `PageHash(std::span<const std::byte> message)`.
namespace pagedkv {

inline constexpr std::size_t kTrailerBytes = 2 * sizeof(std::uint32_t);
inline constexpr bool kTokensLieReady = std::endian::native == std::endian::little;

class OwnMessage {
 public:
  explicit OwnMessage(std::span<std::byte> buffer) : begin_(buffer.data()), next_(begin_) {}

  void put(std::span<const std::byte> bytes) {
    if (!bytes.empty()) std::memcpy(next_, bytes.data(), bytes.size());
    next_ += bytes.size();
  }

  void put(std::uint32_t value) {
    store_little_endian(next_, value);
    next_ += sizeof value;
  }

  // In one piece, since a digest may begin by reading it so.
  void put_trailer(std::uint32_t first, std::uint32_t second) {
    store_little_endian(next_, first | std::uint64_t{second} << 32);
    next_ += kTrailerBytes;
  }

  void put(std::span<const TokenId> tokens) {
    if constexpr (kTokensLieReady) {
      put(std::as_bytes(tokens));
    } else {
      for (const TokenId token : tokens) put(static_cast<std::uint32_t>(token));
    }
  }

  std::span<const std::byte> bytes() const { return {begin_, next_}; }

 private:
  std::byte* begin_;
  std::byte* next_;
};

template <typename Digest>
PageHash hash_own_root(std::string_view seed, Digest digest) {
  constexpr std::string_view kVersion = "pagedkv page hash 1";
  constexpr std::uint32_t kRootMark = 0xFFFFFFFF;
  return with_buffer(kVersion.size() + seed.size() + kTrailerBytes, [&](auto buffer) {
    OwnMessage message(buffer);
    message.put(std::as_bytes(std::span(kVersion)));
    message.put(std::as_bytes(std::span(seed)));
    message.put_trailer(kRootMark, static_cast<std::uint32_t>(seed.size()));
    return digest(message.bytes());
  });
}

template <typename Digest>
PageHash hash_own_page(std::span<const std::byte> parent, std::span<const TokenId> tokens,
                       std::span<const std::byte> extra, Digest digest) {
  const std::size_t size = tokens.size_bytes() + extra.size() + parent.size() + kTrailerBytes;
  return with_buffer(size, [&](auto buffer) {
    OwnMessage message(buffer);
    message.put(tokens);
    message.put(extra);
    message.put(parent);
    message.put_trailer(static_cast<std::uint32_t>(tokens.size()),
                        static_cast<std::uint32_t>(extra.size()));
    return digest(message.bytes());
  });
}

}  // namespace pagedkv
