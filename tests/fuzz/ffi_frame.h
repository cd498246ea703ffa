#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "xla/ffi/api/c_api.h"

/// Calls FFI handlers as XLA does, but with any operands at all and without a program to compile:
/// millions of calls instead of dozens.
namespace pagedkv::fuzz {

using Bytes = std::vector<std::byte>;

/// An operand or a result, and what is in it before the call.
struct Tensor {
  XLA_FFI_DataType dtype;
  std::vector<int64_t> shape;
  Bytes contents;
};

struct Attribute {
  std::string name;
  std::variant<bool, int32_t, int64_t, float, std::string> value;
};

/// The operand that a result does not share its memory with.
inline constexpr size_t kNoAlias = SIZE_MAX;

struct Call {
  std::string_view target;     // the handler's name
  std::string_view operation;  // what its errors start with, in brackets
  XLA_FFI_Handler* handler;
  std::vector<Tensor> operands;
  std::vector<Tensor> results;
  std::vector<size_t> aliases;  // by result: the operand whose memory it has, or kNoAlias
  std::vector<Attribute> attributes;
  int64_t num_threads = 1;           // as the runtime tells them
  bool threads_are_refused = false;  // the runtime schedules nothing
};

/// What a call came to, and what is in its operands and results after it.
struct Outcome {
  XLA_FFI_Error_Code code = XLA_FFI_Error_Code_OK;
  std::string message;
  std::vector<Bytes> operands;
  std::vector<Bytes> results;

  bool ok() const { return code == XLA_FFI_Error_Code_OK; }
};

/// Bits of an element in memory; types under a byte are packed. 0 for tokens.
int64_t element_bits(XLA_FFI_DataType dtype);

/// Elements of a shape, or the largest number if they are more: no array in memory has so many.
int64_t num_elements(std::span<const int64_t> shape);

/// Bytes that XLA gives an array, or nothing if they are more than any call here may have.
std::optional<size_t> array_bytes(XLA_FFI_DataType dtype, std::span<const int64_t> shape);

/// Runs the handler in stage "execute". Every operand and result is a heap block of its own and of
/// exactly its bytes, unless aliased, so that AddressSanitizer sees an access outside of it; an
/// empty one is null. An exception becomes UNKNOWN, as in XLA.
///
/// Requires that an aliased result has as many bytes as its operand.
Outcome run(const Call& call);

/// The call in words: target, attributes, operands, results.
std::string describe(const Call& call);

}  // namespace pagedkv::fuzz
