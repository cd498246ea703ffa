#pragma once

#include <nanobind/nanobind.h>

#include <cstring>

#include "pagedkv/error.h"
#include "pagedkv/hash/page_hash.h"

// Page digests cross into Python as `bytes` of length 32.
namespace pagedkv {

inline nanobind::bytes bytes_of(const PageHash& hash) {
  return nanobind::bytes(hash.bytes.data(), hash.bytes.size());
}

/// Throws `std::invalid_argument` unless `digest` has 32 bytes.
inline PageHash page_hash_of(const nanobind::bytes& digest, const char* operation,
                             const char* name = "digest") {
  PageHash hash;
  if (digest.size() != hash.bytes.size()) {
    throw_value_error(operation, name, " must be ", hash.bytes.size(), " bytes, got ",
                      digest.size());
  }
  std::memcpy(hash.bytes.data(), digest.data(), hash.bytes.size());
  return hash;
}

}  // namespace pagedkv
