#include <array>
#include <bit>
#include <cstring>

#include "hash_functions.h"
#include "pagedkv/hash/big_endian.h"
#include "pagedkv/hash/little_endian.h"
#include "pagedkv/hash/sha256.h"
#include "with_buffer.h"

// Our own chain. All numbers are u32, least significant byte first.
//
//   page:  SHA-256( tokens  ||  extra  ||  parent (32)  ||  number of tokens  ||  bytes of extra )
//   root:  SHA-256( "pagedkv page hash 1"  ||  seed  ||  0xFFFFFFFF  ||  bytes of seed )
//
// Tokens first: of a page of 16 or more, the first 64 bytes are one block of SHA-256 that does not
// depend on the page before, so the CPU works on it while that page is not done yet. Each message
// can be read in one way only, from its end: the last eight bytes say how long the parts are, and
// no page has 2^32 - 1 tokens. A change of the format changes the text in the root, and with it
// every digest.
namespace pagedkv {
namespace {

constexpr std::string_view kVersion = "pagedkv page hash 1";
constexpr std::uint32_t kRootMark = 0xFFFFFFFF;
constexpr std::size_t kTrailerBytes = 2 * sizeof(std::uint32_t);
constexpr bool kTokensLieReady = std::endian::native == std::endian::little;

class Message {
 public:
  explicit Message(std::span<std::byte> buffer) : begin_(buffer.data()), next_(begin_) {}

  void put(std::span<const std::byte> bytes) {
    if (!bytes.empty()) std::memcpy(next_, bytes.data(), bytes.size());
    next_ += bytes.size();
  }

  void put(std::uint32_t value) {
    store_little_endian(next_, value);
    next_ += sizeof value;
  }

  void put(std::span<const TokenId> tokens) {
    if constexpr (kTokensLieReady) {
      put(std::as_bytes(tokens));
    } else {
      for (const TokenId token : tokens) put(static_cast<std::uint32_t>(token));
    }
  }

  PageHash hash() const { return {sha256({begin_, next_})}; }

 private:
  std::byte* begin_;
  std::byte* next_;
};

PageHash none_hash(std::string_view seed) {
  return with_buffer(kVersion.size() + seed.size() + kTrailerBytes, [&](auto buffer) {
    Message message(buffer);
    message.put(std::as_bytes(std::span(kVersion)));
    message.put(std::as_bytes(std::span(seed)));
    message.put(kRootMark);
    message.put(static_cast<std::uint32_t>(seed.size()));
    return message.hash();
  });
}

// Tokens that fill whole blocks are hashed where they lie; what follows is one block more.
PageHash hash_whole_blocks(const PageHash& parent, std::span<const TokenId> tokens) {
  std::array<std::byte, kSha256BlockBytes> last{};
  std::byte* const trailer = last.data() + sizeof parent;
  std::memcpy(last.data(), parent.bytes.data(), sizeof parent);
  store_little_endian(trailer, static_cast<std::uint32_t>(tokens.size()));
  trailer[kTrailerBytes] = std::byte{0x80};
  store_big_endian(last.data() + kSha256BlockBytes - 8,
                   8 * std::uint64_t{tokens.size_bytes() + sizeof parent + kTrailerBytes});
  return {sha256_padded(std::as_bytes(tokens), last)};
}

PageHash hash_page(const PageHash& parent, std::span<const TokenId> tokens,
                   std::span<const std::byte> extra) {
  if (kTokensLieReady && extra.empty() && tokens.size_bytes() % kSha256BlockBytes == 0) {
    return hash_whole_blocks(parent, tokens);
  }
  const std::size_t size = tokens.size_bytes() + extra.size() + sizeof parent + kTrailerBytes;
  return with_buffer(size, [&](auto buffer) {
    Message message(buffer);
    message.put(tokens);
    message.put(extra);
    message.put(parent.bytes);
    message.put(static_cast<std::uint32_t>(tokens.size()));
    message.put(static_cast<std::uint32_t>(extra.size()));
    return message.hash();
  });
}

}  // namespace

constinit const HashFunctions kPagedkvFunctions = {
    HashAlgorithm::kPagedkv, "pagedkv", "pagedkv", 32, true, none_hash, hash_page,
};

}  // namespace pagedkv
