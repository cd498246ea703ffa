#include "page_pickle.h"

#include <cassert>
#include <cstring>

#include "pagedkv/hash/little_endian.h"

namespace pagedkv {
namespace {

// Opcodes, as Python's pickletools names them.
constexpr std::uint8_t kProto = 0x80;
constexpr std::uint8_t kFrame = 0x95;
constexpr std::uint8_t kStop = '.';
constexpr std::uint8_t kMemoize = 0x94;
constexpr std::uint8_t kNone = 'N';
constexpr std::uint8_t kMark = '(';
constexpr std::uint8_t kEmptyTuple = ')';
constexpr std::uint8_t kTuple = 't';
constexpr std::uint8_t kTuple1 = 0x85;  // kTuple2 and kTuple3 follow
constexpr std::uint8_t kTuple3 = 0x87;
constexpr std::uint8_t kBinInt = 'J';   // four bytes
constexpr std::uint8_t kBinInt1 = 'K';  // one byte, not negative
constexpr std::uint8_t kBinInt2 = 'M';  // two bytes, not negative
constexpr std::uint8_t kShortBinBytes = 'C';
constexpr std::uint8_t kShortText = 0x8C;
constexpr std::uint8_t kText = 'X';

constexpr std::uint8_t kProtocol = 5;
constexpr std::size_t kFrameTargetBytes = 64 * 1024;
constexpr std::size_t kFrameHeadBytes = 1 + 8;
constexpr std::size_t kMaxIntBytes = 1 + 4;
constexpr std::size_t kSlackBytes = 8;

// Writes opcodes into frames.
class PickleWriter {
 public:
  explicit PickleWriter(std::span<std::byte> buffer) : begin_(buffer.data()), next_(begin_) {
    put(kProto);
    put(kProtocol);
  }

  void put(std::uint8_t value) { *next_++ = std::byte{value}; }

  void put_u32(std::uint32_t value) {
    store_little_endian(next_, value);
    next_ += sizeof value;
  }

  void put(std::span<const std::byte> bytes) {
    if (!bytes.empty()) std::memcpy(next_, bytes.data(), bytes.size());
    next_ += bytes.size();
  }

  // One wide store whatever the size, then as far on as it is.
  void put_int(TokenId value) {
    const auto number = static_cast<std::uint32_t>(value);
    const bool is_1_byte = number < 0x100;
    const bool is_2_bytes = number < 0x10000;
    const std::uint64_t opcode = is_1_byte ? kBinInt1 : is_2_bytes ? kBinInt2 : kBinInt;
    store_little_endian(next_, opcode | std::uint64_t{number} << 8);
    next_ += is_1_byte ? 2 : is_2_bytes ? 3 : kMaxIntBytes;
  }

  void open_frame() {
    frame_ = next_;
    next_ += kFrameHeadBytes;
  }

  void close_frame() {
    *frame_ = std::byte{kFrame};
    const auto size = static_cast<std::uint64_t>(next_ - frame_) - kFrameHeadBytes;
    store_little_endian(frame_ + 1, size);
  }

  // Before each value but the first: a full frame ends here.
  void begin_value() {
    if (next_ - frame_ < std::ptrdiff_t{kFrameHeadBytes + kFrameTargetBytes}) return;
    close_frame();
    open_frame();
  }

  std::size_t size() const { return static_cast<std::size_t>(next_ - begin_); }

 private:
  std::byte* begin_;
  std::byte* next_;
  std::byte* frame_ = nullptr;
};

void put_tokens(PickleWriter& writer, std::span<const TokenId> tokens) {
  writer.begin_value();
  if (tokens.empty()) return writer.put(kEmptyTuple);
  const bool is_marked = tokens.size() > 3;
  if (is_marked) writer.put(kMark);
  for (const TokenId token : tokens) {
    writer.begin_value();
    writer.put_int(token);
  }
  writer.put(is_marked ? kTuple : static_cast<std::uint8_t>(kTuple1 + tokens.size() - 1));
  writer.put(kMemoize);
}

}  // namespace

std::size_t max_page_pickle_bytes(std::size_t num_tokens) {
  constexpr std::size_t kParentAndOpcodes = 256;
  const std::size_t bytes = kMaxIntBytes * num_tokens + kParentAndOpcodes;
  return bytes + bytes / kFrameTargetBytes * kFrameHeadBytes + kSlackBytes;
}

std::size_t write_page_pickle(std::span<std::byte> buffer, std::span<const std::byte> parent,
                              std::span<const TokenId> tokens) {
  assert(buffer.size() >= max_page_pickle_bytes(tokens.size()));
  PickleWriter writer(buffer);
  writer.open_frame();
  writer.put(kShortBinBytes);
  writer.put(static_cast<std::uint8_t>(parent.size()));
  writer.put(parent);
  writer.put(kMemoize);
  put_tokens(writer, tokens);
  writer.begin_value();
  writer.put(kNone);
  writer.put(kTuple3);
  writer.put(kMemoize);
  writer.put(kStop);
  writer.close_frame();
  return writer.size();
}

std::size_t max_text_pickle_bytes(std::string_view text) {
  constexpr std::size_t kOpcodes = 2 + kFrameHeadBytes + 5 + 2;
  return text.size() + kOpcodes;
}

std::size_t write_text_pickle(std::span<std::byte> buffer, std::string_view text) {
  assert(buffer.size() >= max_text_pickle_bytes(text));
  const bool is_framed = text.size() < kFrameTargetBytes;  // a large text stands outside frames
  PickleWriter writer(buffer);
  if (is_framed) writer.open_frame();
  const auto size = static_cast<std::uint32_t>(text.size());
  if (size < 0x100) {
    writer.put(kShortText);
    writer.put(static_cast<std::uint8_t>(size));
  } else {
    writer.put(kText);
    writer.put_u32(size);
  }
  writer.put(std::as_bytes(std::span(text)));
  writer.put(kMemoize);
  writer.put(kStop);
  if (is_framed) writer.close_frame();
  return writer.size();
}

}  // namespace pagedkv
