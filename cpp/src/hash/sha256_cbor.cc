#include <algorithm>
#include <array>

#include "hash_functions.h"
#include "page_cbor.h"
#include "pagedkv/hash/sha256.h"
#include "sha256_compress.h"

namespace pagedkv {
namespace {

PageHash none_hash(std::string_view seed) {
  return hash_seed_cbor(seed, [](auto message) { return PageHash{sha256(message)}; });
}

constexpr PageHash kRoomForParent;

constexpr std::size_t max_padded_bytes(std::size_t num_tokens, std::size_t extra_bytes) {
  return max_page_cbor_bytes(num_tokens, extra_bytes) + kSha256MaxPaddingBytes;
}

PageHash hash_page(const PageHash& parent, std::span<const TokenId> tokens,
                   std::span<const std::byte> extra) {
  const std::size_t max_bytes = max_padded_bytes(tokens.size(), extra.size());
  return with_buffer(max_bytes, [&](std::span<std::byte> buffer) {
    const std::size_t size = write_page_cbor(buffer, kRoomForParent.bytes, tokens, extra);
    return PageHash{sha256_linked(parent.bytes, buffer, size)};
  });
}

// A run that is being hashed. The message of the next page is written before a page is hashed:
// bytes just written cannot be loaded at once in larger pieces, so hashing would wait for them.
class Lane {
 public:
  explicit Lane(std::span<std::byte> memory)
      : buffers_{memory.first(memory.size() / 2), memory.subspan(memory.size() / 2)} {}

  bool is_done() const { return page_ == run_.digests.size(); }

  void start(const PageRun& run) {
    run_ = run;
    page_ = 0;
    message_.digest = run.parent.bytes;
    if (!is_done()) write(0);
  }

  // The message of the current page. Its digest is to be put in its place.
  Sha256LinkedMessage& message() {
    message_.blocks = buffer(page_).data();
    message_.num_blocks = num_blocks_[page_ % 2];
    if (page_ + 1 < run_.digests.size()) write(page_ + 1);
    return message_;
  }

  void take_digest() { run_.digests[page_++].bytes = message_.digest; }

 private:
  std::span<std::byte> buffer(std::size_t page) const { return buffers_[page % 2]; }

  void write(std::size_t page) {
    const std::span<std::byte> out = buffer(page);
    const std::size_t page_size = run_.page_size();
    const std::size_t size = write_page_cbor(out, kRoomForParent.bytes,
                                             run_.tokens.subspan(page * page_size, page_size), {});
    const std::size_t padded = sha256_padded_bytes(size);
    write_sha256_padding(out.data() + size, out.data() + padded, size);
    num_blocks_[page % 2] = padded / kSha256BlockBytes;
  }

  PageRun run_;
  std::size_t page_ = 0;
  std::array<std::span<std::byte>, 2> buffers_;
  std::array<std::size_t, 2> num_blocks_ = {};
  Sha256LinkedMessage message_;
};

// Gives `lane` the next of `runs` that has pages, if it has come to an end. False: there is none.
bool refill(Lane& lane, std::span<const PageRun>& runs) {
  for (; lane.is_done() && !runs.empty(); runs = runs.subspan(1)) lane.start(runs.front());
  return !lane.is_done();
}

// A page waits for the one before, which leaves the unit half idle: so two runs side by side.
void hash_runs(std::span<const PageRun> runs) {
  std::size_t page_size = 0;
  for (const PageRun& run : runs) page_size = std::max(page_size, run.page_size());
  const std::size_t lane_bytes = 2 * max_padded_bytes(page_size, 0);
  with_buffer(2 * lane_bytes, [&](std::span<std::byte> memory) {
    const Sha256Implementation& sha256 = fastest_sha256();
    Lane first(memory.first(lane_bytes));
    Lane second(memory.subspan(lane_bytes, lane_bytes));
    while (refill(first, runs) && refill(second, runs)) {
      sha256.digest_two_linked(first.message(), second.message());
      first.take_digest();
      second.take_digest();
    }
    for (Lane& last = first.is_done() ? second : first; !last.is_done(); last.take_digest()) {
      Sha256LinkedMessage& message = last.message();
      message.digest = sha256.digest_linked(message.digest, message.blocks, message.num_blocks);
    }
  });
}

}  // namespace

constinit const HashFunctions kSha256CborFunctions = {
    HashAlgorithm::kSha256Cbor,
    "sha256_cbor",
    "sha256_cbor",
    32,
    true,
    none_hash,
    hash_page,
    hash_runs,
};

}  // namespace pagedkv
