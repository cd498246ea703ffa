#include <array>
#include <bit>
#include <cstring>

#include "hash_functions.h"
#include "pagedkv/hash/big_endian.h"
#include "pagedkv/hash/little_endian.h"
#include "pagedkv/hash/sha256.h"
#include "sha256_compress.h"
#include "with_buffer.h"

// The format is defined with `HashAlgorithm::kPagedkv`.
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

PageHash hash_page(const PageHash& parent, std::span<const TokenId> tokens,
                   std::span<const std::byte> extra) {
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

// The block behind the tokens, in a run of pages whose tokens fill whole blocks.
class LastBlock {
 public:
  explicit LastBlock(std::size_t num_tokens) {
    std::byte* const trailer = bytes_.data() + sizeof(PageHash);
    const std::uint64_t message_bytes = sizeof(TokenId) * num_tokens + sizeof(PageHash);
    store_little_endian(trailer, static_cast<std::uint32_t>(num_tokens));
    trailer[kTrailerBytes] = std::byte{0x80};
    store_big_endian(bytes_.data() + kSha256BlockBytes - 8, 8 * (message_bytes + kTrailerBytes));
  }

  const std::byte* with_parent(const PageHash& parent) {
    std::memcpy(bytes_.data(), parent.bytes.data(), sizeof parent);
    return bytes_.data();
  }

 private:
  std::array<std::byte, kSha256BlockBytes> bytes_{};
};

// Finishes each page while it begins the next, whose first block does not wait for it.
void hash_pages_of_whole_blocks(const PageHash& parent, const std::byte* tokens,
                                std::size_t page_bytes, std::span<PageHash> digests) {
  const auto& sha256 = fastest_sha256();
  const std::size_t num_more_blocks = page_bytes / kSha256BlockBytes - 1;
  LastBlock last_block(page_bytes / sizeof(TokenId));
  Sha256State begun = kSha256InitialState;
  sha256.compress(begun, tokens, 1);
  const PageHash* previous = &parent;
  for (std::size_t page = 0; page < digests.size(); ++page, tokens += page_bytes) {
    sha256.compress(begun, tokens + kSha256BlockBytes, num_more_blocks);
    Sha256Step finish = {begun, last_block.with_parent(*previous)};
    if (page + 1 < digests.size()) {
      Sha256Step begin = {kSha256InitialState, tokens + page_bytes};
      sha256.compress_two(finish, begin);
      begun = begin.state;
    } else {
      sha256.compress(finish.state, finish.block, 1);
    }
    digests[page] = {to_digest(finish.state)};
    previous = &digests[page];
  }
}

void hash_runs(std::span<const PageRun> runs) {
  for (const PageRun& run : runs) {
    const std::size_t page_bytes = run.page_size() * sizeof(TokenId);
    if (kTokensLieReady && page_bytes > 0 && page_bytes % kSha256BlockBytes == 0) {
      const auto* const tokens = std::as_bytes(run.tokens).data();
      hash_pages_of_whole_blocks(run.parent, tokens, page_bytes, run.digests);
    } else {
      hash_in_turn(run, kPagedkvFunctions);
    }
  }
}

}  // namespace

constinit const HashFunctions kPagedkvFunctions = {
    HashAlgorithm::kPagedkv, "pagedkv", "pagedkv", 32, true, none_hash, hash_page, hash_runs,
};

}  // namespace pagedkv
