#include "pagedkv/trace/trace_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <string_view>
#include <system_error>

#include "pagedkv/error.h"
#include "pagedkv/hash/little_endian.h"

namespace pagedkv {
namespace {

constexpr std::string_view kMagic = "PKVTRACE";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kFileHeadBytes = kMagic.size() + sizeof kVersion;
constexpr std::size_t kHeadBytes = 2 * sizeof(std::uint32_t);  // length and its guard
constexpr std::size_t kChecksumBytes = sizeof(std::uint64_t);

std::array<std::byte, kFileHeadBytes> file_head() {
  std::array<std::byte, kFileHeadBytes> head;
  std::ranges::copy(std::as_bytes(std::span(kMagic)), head.begin());
  store_little_endian(head.data() + kMagic.size(), kVersion);
  return head;
}

File open(const std::string& path, const char* mode) {
  File file(std::fopen(path.c_str(), mode));
  if (!file) throw std::system_error(errno, std::generic_category(), path);
  return file;
}

}  // namespace

ChecksumChain::ChecksumChain() : last_(xxh3_128(file_head())) {}

std::uint32_t ChecksumChain::guard_of(std::uint32_t length) const {
  std::array<std::byte, sizeof last_ + sizeof length> message;
  std::ranges::copy(last_, message.begin());
  store_little_endian(message.data() + sizeof last_, length);
  return load_little_endian32(xxh3_128(message).data());
}

std::uint64_t ChecksumChain::add(std::span<const std::byte> payload) {
  scratch_.assign(last_.begin(), last_.end());
  scratch_.insert(scratch_.end(), payload.begin(), payload.end());
  last_ = xxh3_128(scratch_);
  return load_little_endian64(last_.data());
}

TraceWriter::TraceWriter(const std::string& path, bool flush_each)
    : file_(open(path, "wb")), path_(path), flush_each_(flush_each) {
  put(file_head());
}

void TraceWriter::put(std::span<const std::byte> bytes) {
  if (error_ == 0 && std::fwrite(bytes.data(), 1, bytes.size(), file_.get()) != bytes.size()) {
    error_ = errno;
  }
}

void TraceWriter::write(std::span<const std::byte> payload) {
  if (payload.size() > std::numeric_limits<std::uint32_t>::max()) error_ = EFBIG;
  if (error_ != 0) return;
  const auto length = static_cast<std::uint32_t>(payload.size());
  std::array<std::byte, kHeadBytes> head;
  store_little_endian(head.data(), length);
  store_little_endian(head.data() + sizeof length, chain_.guard_of(length));
  std::array<std::byte, kChecksumBytes> checksum;
  store_little_endian(checksum.data(), chain_.add(payload));
  put(head);
  put(payload);
  put(checksum);
  if (flush_each_ && error_ == 0 && std::fflush(file_.get()) != 0) error_ = errno;
}

void TraceWriter::close() {
  if (file_ && std::fclose(file_.release()) != 0 && error_ == 0) error_ = errno;
  if (error_ != 0) throw std::system_error(error_, std::generic_category(), path_);
}

TraceReader::TraceReader(const std::string& path, const char* operation)
    : file_(open(path, "rb")), operation_(operation) {
  if (std::fseek(file_.get(), 0, SEEK_END) != 0) {
    throw std::system_error(errno, std::generic_category(), path);
  }
  const long size = std::ftell(file_.get());
  if (size < 0 || std::fseek(file_.get(), 0, SEEK_SET) != 0) {
    throw std::system_error(errno, std::generic_category(), path);
  }
  size_ = static_cast<std::uint64_t>(size);
  std::array<std::byte, kFileHeadBytes> head{};
  if (size_ >= head.size() && !get(head)) {  // a folder, say
    throw std::system_error(errno, std::generic_category(), path);
  }
  if (size_ < head.size() ||
      !std::ranges::equal(std::span(head).first(kMagic.size()), std::as_bytes(std::span(kMagic)))) {
    throw_value_error(operation, "'", path, "' is no op trace");
  }
  const std::uint32_t version = load_little_endian32(head.data() + kMagic.size());
  if (version != kVersion) {
    throw_value_error(operation, "'", path, "' is an op trace of version ", version,
                      ", this reads version ", kVersion);
  }
}

bool TraceReader::get(std::span<std::byte> bytes) {
  next_ += bytes.size();
  return std::fread(bytes.data(), 1, bytes.size(), file_.get()) == bytes.size();
}

std::optional<std::span<const std::byte>> TraceReader::next() {
  begin_ = next_;
  const auto fail = [this](const char* what) {
    throw_value_error(operation_, "at byte ", begin_, ": the trace is damaged, ", what);
  };
  const auto cut = [this]() -> std::optional<std::span<const std::byte>> {
    is_cut_ = true;
    return std::nullopt;
  };
  if (is_cut_ || begin_ == size_) return std::nullopt;
  if (size_ - begin_ < kHeadBytes) return cut();
  std::array<std::byte, kHeadBytes> head;
  if (!get(head)) fail("it cannot be read");
  const std::uint32_t length = load_little_endian32(head.data());
  if (load_little_endian32(head.data() + sizeof length) != chain_.guard_of(length)) {
    fail("the length of a record does not match its checksum");
  }
  if (size_ - next_ < length + kChecksumBytes) return cut();
  offset_ = next_;
  payload_.resize(length);
  std::array<std::byte, kChecksumBytes> checksum;
  if (!get(payload_) || !get(checksum)) fail("it cannot be read");
  if (load_little_endian64(checksum.data()) != chain_.add(payload_)) {
    fail("a record does not match its checksum");
  }
  return payload_;
}

}  // namespace pagedkv
