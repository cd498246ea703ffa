#include <array>
#include <cstring>

#include "hash_functions.h"
#include "own_message.h"
#include "pagedkv/hash/big_endian.h"
#include "pagedkv/hash/little_endian.h"
#include "pagedkv/hash/xxh3.h"
#include "xxh3_page_hash.h"
#include "xxh3_rounds.h"

namespace pagedkv {
namespace {

PageHash none_hash(std::string_view seed) { return hash_own_root(seed, xxh3_page_hash); }

PageHash hash_page(const PageHash& parent, std::span<const TokenId> tokens,
                   std::span<const std::byte> extra) {
  const auto parent_digest = std::span(parent.bytes).first<sizeof(Xxh3Digest)>();
  return hash_own_page(parent_digest, tokens, extra, xxh3_page_hash);
}

// Pages of a size that is known here: nothing is left of a page but its arithmetic, and most of
// that does not wait for the page before.
template <std::size_t kNumTokens>
void hash_pages_of(const PageRun& run) {
  constexpr std::size_t kTokenBytes = kNumTokens * sizeof(TokenId);
  constexpr std::size_t kMessageBytes = kTokenBytes + sizeof(Xxh3Digest) + kTrailerBytes;
  static_assert(kMessageBytes > 16 && kMessageBytes <= 128);
  std::array<std::byte, kMessageBytes> message;
  std::byte* const parent = message.data() + kTokenBytes;
  store_little_endian(parent + sizeof(Xxh3Digest), std::uint64_t{kNumTokens});
  std::memcpy(parent, run.parent.bytes.data(), sizeof(Xxh3Digest));
  const std::byte* tokens = std::as_bytes(run.tokens).data();
  for (PageHash& digest : run.digests) {
    std::memcpy(message.data(), tokens, kTokenBytes);
    const xxh3::Words128 hash = xxh3::hash_17_to_128(message.data(), kMessageBytes);
    // From registers into both: a copy would wait for the words to arrive in memory.
    digest = {};
    for (std::byte* const out : {parent, digest.bytes.data()}) {
      store_big_endian(out, hash.high);
      store_big_endian(out + 8, hash.low);
    }
    tokens += kTokenBytes;
  }
}

void hash_runs(std::span<const PageRun> runs) {
  for (const PageRun& run : runs) {
    if (kTokensLieReady && run.page_size() == 16) {
      hash_pages_of<16>(run);
    } else {
      hash_in_turn(run, kPagedkvXxh3Functions);
    }
  }
}

}  // namespace

constinit const HashFunctions kPagedkvXxh3Functions = {
    HashAlgorithm::kPagedkvXxh3,
    "pagedkv_xxh3",
    "pagedkv_xxh3",
    16,
    true,
    none_hash,
    hash_page,
    hash_runs,
};

}  // namespace pagedkv
