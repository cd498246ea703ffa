#pragma once

#include "ffi_frame.h"
#include "fuzz_random.h"

/// Calls to start from: every handler, layout, dtype, granularity and mode, layered or not, with
/// and without batch axes, with good ids and with bad ones.
namespace pagedkv::fuzz {

enum class Expectation : uint8_t {
  kSuccess,
  kOutOfRange,  // mode "raise" and an id that is out of range
  kAnything,    // sizes that nobody has
};

struct Case {
  Call call;
  Expectation expectation;
  bool has_bad_ids;
};

Case make_case(Random& random);

/// Every dtype there is.
std::span<const XLA_FFI_DataType> all_dtypes();

/// Sizes that nobody has, for the arithmetic of the checks.
std::span<const int64_t> extreme_sizes();

/// Ids that nobody should have: padding, the ends of int32, around `bound`, or any.
int32_t bad_id(Random& random, int64_t bound);

/// Gives every array the bytes that its shape asks for, what is new among them random, and takes
/// memory apart that an aliased result can no longer share. False if an array is too large.
bool settle(Call& call, Random& random);

}  // namespace pagedkv::fuzz
