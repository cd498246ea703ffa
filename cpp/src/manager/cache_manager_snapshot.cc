#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <vector>

#include "pagedkv/bytes.h"
#include "pagedkv/error.h"
#include "pagedkv/hash/little_endian.h"
#include "pagedkv/hash/xxh3.h"
#include "pagedkv/manager/cache_manager.h"
#include "pagedkv/manager/config_bytes.h"
#include "pagedkv/spec/spec_bytes.h"

// The prefix index as bytes. docs/snapshots.md has the format.
namespace pagedkv {
namespace {

constexpr auto kOperation = "CacheManager.restore";
constexpr std::string_view kMagic = "PKVINDEX";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kHeadBytes = kMagic.size() + sizeof kVersion;

// The part between head and checksum.
std::span<const std::byte> checked_body(std::span<const std::byte> snapshot) {
  const auto magic = std::as_bytes(std::span(kMagic));
  if (snapshot.size() < kHeadBytes + sizeof(Xxh3Digest) ||
      !std::ranges::equal(snapshot.first(kMagic.size()), magic)) {
    throw_value_error(kOperation, "these ", snapshot.size(), " bytes are no snapshot");
  }
  const std::uint32_t version = load_little_endian32(snapshot.data() + kMagic.size());
  if (version != kVersion) {
    throw_value_error(kOperation, "the snapshot is of version ", version, ", this reads version ",
                      kVersion);
  }
  const auto covered = snapshot.first(snapshot.size() - sizeof(Xxh3Digest));
  if (!std::ranges::equal(xxh3_128(covered), snapshot.last(sizeof(Xxh3Digest)))) {
    throw_value_error(kOperation, "the snapshot is damaged: its checksum does not match its ",
                      snapshot.size(), " bytes");
  }
  return covered.subspan(kHeadBytes);
}

template <typename Value>
void check_same(const char* what, const Value& ours, const Value& theirs) {
  if (ours == theirs) return;
  throw_value_error(kOperation, "the snapshot has ", what, " ", theirs, ", this manager ", ours);
}

std::vector<PageId> get_order(ByteReader& reader, PageId num_pages) {
  std::vector<PageId> order(reader.get_count());
  check_same("a number of free pages", static_cast<std::size_t>(num_pages - 1), order.size());
  std::int64_t previous = 0;
  for (PageId& page : order) {
    const std::int64_t step = reader.get_int();
    if (step < -num_pages || step > num_pages) reader.fail("a page id is out of range");
    previous += step;
    if (previous < 0 || previous >= num_pages) reader.fail("a page id is out of range");
    page = static_cast<PageId>(previous);
  }
  return order;
}

}  // namespace

// As if each request was freed in turn, and then each pin: a page goes where its last holder gives
// it back.
std::vector<PageId> CacheManager::order_of_eviction() const {
  std::vector<std::int32_t> num_holders(static_cast<std::size_t>(pool_.num_pages()), 0);
  std::vector<PageId> first;
  std::vector<PageId> last;
  const auto give_back = [&](std::span<const PageId> pages) {
    std::vector<PageId> blank;
    for (const PageId page : pages) {
      if (++num_holders[static_cast<std::size_t>(page)] != pool_.ref_count(page)) continue;
      const bool goes_first =
          options_.free_order == FreeOrder::kUncachedFirst && !pool_.is_cached(page);
      (goes_first ? blank : last).push_back(page);
    }
    first.insert(first.begin(), blank.begin(), blank.end());
  };
  std::vector<PageId> held;
  for (const RequestState& state : states_) {
    if (state.request == nullptr) continue;
    held.clear();
    append_last_first(rows_of(*state.request), held);
    give_back(held);
  }
  pins_.for_each(give_back);
  const std::vector<PageId> free = pool_.free_pages();
  first.insert(first.end(), free.begin(), free.end());
  first.insert(first.end(), last.begin(), last.end());
  return first;
}

std::vector<std::byte> CacheManager::snapshot() const {
  ByteWriter writer;
  std::array<std::byte, sizeof kVersion> version;
  store_little_endian(version.data(), kVersion);
  writer.put_raw(std::as_bytes(std::span(kMagic)));
  writer.put_raw(version);

  writer.put_int(pool_.num_pages());
  put_hasher(writer, hasher());
  writer.put_int(hash_page_size());
  writer.put_uint(specs_.size());
  for (const AnyCacheSpec& spec : specs_) put_spec(writer, spec);

  const std::vector<PageId> order = order_of_eviction();
  writer.put_uint(order.size());
  PageId previous = 0;
  for (const PageId page : order) {
    writer.put_int(std::int64_t{page} - previous);
    previous = page;
  }
  const std::vector<PageContent> contents = pool_.contents();
  writer.put_uint(contents.size());
  for (const PageContent& content : contents) {
    writer.put_int(content.page);
    writer.put_int(content.group);
    writer.put_raw(std::span(content.hash.bytes).first(digest_bytes(hasher().algorithm())));
  }
  const Xxh3Digest checksum = xxh3_128(writer.bytes());
  writer.put_raw(checksum);
  return {writer.bytes().begin(), writer.bytes().end()};
}

void CacheManager::restore_now(std::span<const std::byte> snapshot) {
  if (!enable_caching()) throw_value_error(kOperation, "caching is off");
  if (num_requests() > 0 || pool_.num_cached_pages() > 0) {
    throw_value_error(kOperation, "the manager must be empty, it has ", num_requests(),
                      " requests with pages and ", pool_.num_cached_pages(), " cached pages");
  }
  ByteReader reader(kOperation, checked_body(snapshot), kHeadBytes);
  check_same("num_pages", pool_.num_pages(), reader.get_int_as<PageId>());
  const PageHasher their_hasher = get_hasher(reader);
  check_same("hash algorithm", name(hasher().algorithm()), name(their_hasher.algorithm()));
  if (their_hasher != hasher()) {
    throw_value_error(kOperation, "the snapshot was made with another hash_seed");
  }
  check_same("hash_page_size", hash_page_size(), reader.get_int_as<std::int32_t>());
  check_same("a number of groups", specs_.size(), reader.get_count());
  for (GroupId group = 0; group < num_groups(); ++group) {
    const AnyCacheSpec spec = get_spec(reader);
    const AnyCacheSpec& ours = specs_[static_cast<std::size_t>(group)];
    if (spec == ours) continue;
    throw_value_error(kOperation, "the snapshot has group ", group,
                      " of another spec: ", base_of(spec).type_id(), ", this manager ",
                      base_of(ours).type_id());
  }
  const std::vector<PageId> order = get_order(reader, pool_.num_pages());
  std::vector<PageContent> contents(reader.get_count(2 + digest_bytes(hasher().algorithm())));
  for (PageContent& content : contents) {
    content.page = reader.get_int_as<PageId>();
    content.group = reader.get_int_as<GroupId>();
    if (content.group < 0 || content.group >= num_groups()) {
      reader.fail("there is no group ", content.group);
    }
    std::ranges::copy(reader.get_raw(digest_bytes(hasher().algorithm())),
                      content.hash.bytes.begin());
  }
  reader.check_done();
  pool_.restore(order, contents);
}

}  // namespace pagedkv
