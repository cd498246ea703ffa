#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>

#include "pagedkv/error.h"
#include "pagedkv/hash/hash_algorithm.h"
#include "pagedkv/hash/page_hash.h"

// Page digests cross into Python as `bytes`, as many as the algorithm gives: 32, or 16.
namespace pagedkv {

inline nanobind::bytes bytes_of(const PageHash& hash, HashAlgorithm algorithm) {
  return nanobind::bytes(hash.bytes.data(), digest_bytes(algorithm));
}

/// Throws `std::invalid_argument` unless `digest` has `num_bytes` bytes.
inline PageHash page_hash_of(const nanobind::bytes& digest, std::size_t num_bytes,
                             const char* operation, const char* name = "digest") {
  PageHash hash;
  if (digest.size() != num_bytes) {
    throw_value_error(operation, name, " must be ", num_bytes, " bytes, got ", digest.size());
  }
  std::memcpy(hash.bytes.data(), digest.data(), num_bytes);
  return hash;
}

/// A digest of any algorithm. Throws `std::invalid_argument` unless `digest` has 16 or 32 bytes.
inline PageHash any_page_hash_of(const nanobind::bytes& digest, const char* operation) {
  if (digest.size() != 16 && digest.size() != 32) {
    throw_value_error(operation, "digest must be 16 or 32 bytes, got ", digest.size());
  }
  return page_hash_of(digest, digest.size(), operation);
}

using DigestArray = nanobind::ndarray<nanobind::numpy, std::uint8_t, nanobind::ndim<2>>;

/// A fresh uint8 array, shape `[digests, digest_bytes]`.
inline DigestArray array_of(std::span<const PageHash> digests, HashAlgorithm algorithm) {
  const std::size_t width = digest_bytes(algorithm);
  auto data = std::make_unique_for_overwrite<std::uint8_t[]>(digests.size() * width);
  std::uint8_t* next = data.get();
  for (const PageHash& digest : digests) {
    std::memcpy(next, digest.bytes.data(), width);
    next += width;
  }
  auto* pointer = data.get();
  nanobind::capsule owner(data.release(),
                          [](void* p) noexcept { delete[] static_cast<std::uint8_t*>(p); });
  return DigestArray(pointer, {digests.size(), width}, owner);
}

}  // namespace pagedkv
