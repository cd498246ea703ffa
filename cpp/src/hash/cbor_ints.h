#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

/// Faster ways to encode an array of integers. Each has a file of its own.
namespace pagedkv {

/// Encodes integers from the front of `values` to `out`, as many as it is made for, and takes them
/// off `values`. Returns the end of what it wrote, and may store `CborWriter::kSlackBytes` more.
using PutCborInts = std::byte*(std::byte* out, std::span<const std::int32_t>& values);

/// Null where the CPU lacks the instructions.
PutCborInts* find_cbor_ints_x86_ssse3();

}  // namespace pagedkv
