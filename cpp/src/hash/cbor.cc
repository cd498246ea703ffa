#include "pagedkv/hash/cbor.h"

#include "cbor_ints.h"

namespace pagedkv {

void CborWriter::write_ints(std::span<const std::int32_t> values) {
  static PutCborInts* const put_many = find_cbor_ints_x86_ssse3();
  write_array_head(values.size());
  if (put_many != nullptr) next_ = put_many(next_, values);
  std::byte* next = next_;  // a local, since the bytes written could alias a member
  for (const std::int32_t value : values) {
    assert(end_ - next >= std::ptrdiff_t{sizeof(std::uint64_t)});
    next = value >= 0 ? put_short_head(next, kUnsigned, static_cast<std::uint32_t>(value))
                      : put_short_head(next, kNegative, ~static_cast<std::uint32_t>(value));
  }
  next_ = next;
}

}  // namespace pagedkv
