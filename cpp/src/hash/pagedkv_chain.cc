#include <array>
#include <cstring>

#include "hash_functions.h"
#include "own_message.h"
#include "pagedkv/hash/big_endian.h"
#include "pagedkv/hash/little_endian.h"
#include "pagedkv/hash/sha256.h"
#include "sha256_compress.h"

// The format is defined with `HashAlgorithm::kPagedkv`.
namespace pagedkv {
namespace {

PageHash sha256_page_hash(std::span<const std::byte> message) { return {sha256(message)}; }

PageHash none_hash(std::string_view seed) { return hash_own_root(seed, sha256_page_hash); }

PageHash hash_page(const PageHash& parent, std::span<const TokenId> tokens,
                   std::span<const std::byte> extra) {
  return hash_own_page(parent.bytes, tokens, extra, sha256_page_hash);
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
