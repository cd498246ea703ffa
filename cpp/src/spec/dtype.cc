#include "pagedkv/spec/dtype.h"

#include <array>
#include <utility>

#include "pagedkv/error.h"

namespace pagedkv {
namespace {

constexpr std::array<std::pair<std::string_view, int>, 17> kBitsOfName = {{
    {"float32", 32},
    {"bfloat16", 16},
    {"float16", 16},
    {"float8_e4m3fn", 8},
    {"float8_e4m3", 8},
    {"float8_e4m3b11fnuz", 8},
    {"float8_e5m2", 8},
    {"float8_e3m4", 8},
    {"float4_e2m1fn", 4},
    {"int32", 32},
    {"uint32", 32},
    {"int16", 16},
    {"uint16", 16},
    {"int8", 8},
    {"uint8", 8},
    {"int4", 4},
    {"uint4", 4},
}};

int bits_of(std::string_view name) {
  for (const auto& [known, bits] : kBitsOfName) {
    if (known == name) return bits;
  }
  std::string names;
  for (const auto& [known, bits] : kBitsOfName) {
    names += (names.empty() ? "" : ", ") + std::string(known);
  }
  throw_value_error("DType", "unknown dtype '", name, "', must be one of ", names);
}

}  // namespace

DType::DType(std::string_view name) : name_(name), bits_(bits_of(name)) {}

}  // namespace pagedkv
