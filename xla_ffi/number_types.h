#pragma once

#include <optional>

#include "number_codes.h"
#include "xla/ffi/api/ffi.h"

namespace pagedkv {

namespace ffi = xla::ffi;

/// The number type that a dtype is, or nothing.
inline std::optional<FloatType> float_type(ffi::DataType dtype) {
  if (dtype == ffi::F32) return FloatType::kF32;
  if (dtype == ffi::F16) return FloatType::kF16;
  if (dtype == ffi::BF16) return FloatType::kBf16;
  return std::nullopt;
}

inline std::optional<CodeType> code_type(ffi::DataType dtype) {
  if (dtype == ffi::S8) return CodeType::kInt8;
  if (dtype == ffi::S4) return CodeType::kInt4;
  if (dtype == ffi::F8E4M3FN) return CodeType::kE4m3;
  if (dtype == ffi::F8E5M2) return CodeType::kE5m2;
  return std::nullopt;
}

}  // namespace pagedkv
