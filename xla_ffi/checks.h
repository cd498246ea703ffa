#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <span>
#include <string_view>

#include "pagedkv/error.h"
#include "pagedkv/math.h"
#include "xla/ffi/api/ffi.h"

/// What a handler asks of its operands before it touches memory. `ffi::AnyBuffer` checks nothing,
/// and an exception has no catch to go to, so every answer here is an `ffi::Error`.
namespace pagedkv {

namespace ffi = xla::ffi;

using Shape = std::span<const int64_t>;

inline Shape shape(const ffi::AnyBuffer& buffer) {
  return {buffer.dimensions().begin(), buffer.dimensions().size()};
}

/// A shape inside an error text: `[2, 16, 4]`.
struct Printed {
  Shape shape;
  friend std::ostream& operator<<(std::ostream& out, const Printed& printed) {
    out << '[';
    for (size_t axis = 0; axis < printed.shape.size(); ++axis) {
      out << (axis == 0 ? "" : ", ") << printed.shape[axis];
    }
    return out << ']';
  }
};

/// "[operation] part part …" as an INVALID_ARGUMENT.
template <typename... Parts>
ffi::Error invalid_argument(std::string_view operation, const Parts&... parts) {
  return ffi::Error::InvalidArgument(error_message(operation, parts...));
}

/// Bits of one element in memory. Types under a byte are packed there, although
/// `ffi::ByteWidth` and `AnyBuffer::size_bytes` count them as whole bytes.
constexpr int64_t bits(ffi::DataType dtype) {
  switch (dtype) {
    case ffi::S1:
    case ffi::U1:
      return 1;
    case ffi::S2:
    case ffi::U2:
      return 2;
    case ffi::S4:
    case ffi::U4:
    case ffi::F4E2M1FN:
      return 4;
    default:
      return 8 * static_cast<int64_t>(ffi::ByteWidth(dtype));
  }
}

/// Product of the axes and of `width`. Nothing if it does not fit in `int64_t`, or would not with 1
/// in place of each 0: so the product of some of the axes fits too, be the array empty or not. Nor
/// for a token, which has a width of 0 and no elements to count.
inline std::optional<int64_t> num_bits(Shape axes, int64_t width) {
  if (width == 0) return std::nullopt;
  std::optional<int64_t> product = width;
  bool is_empty = false;
  for (const int64_t axis : axes) {
    is_empty |= axis == 0;
    if (axis != 0) product = checked_mul(*product, axis);
    if (!product) return std::nullopt;
  }
  return is_empty ? 0 : product;
}

/// Product of the axes, or nothing as above.
inline std::optional<int64_t> num_elements(Shape axes) { return num_bits(axes, 1); }

/// Elements of an array in memory, which are not too many to count. Unlike
/// `ffi::AnyBuffer::element_count`, defined for an empty array whatever its other axes.
inline size_t num_elements(const ffi::AnyBuffer& buffer) {
  return static_cast<size_t>(num_elements(shape(buffer)).value_or(0));
}

/// `whole == head + tail`, axis by axis.
inline bool is_concatenation(Shape whole, Shape head, Shape tail) {
  return whole.size() == head.size() + tail.size() &&
         std::ranges::equal(whole.first(head.size()), head) &&
         std::ranges::equal(whole.last(tail.size()), tail);
}

/// Fails unless `buffer` is int32.
inline ffi::Error check_int32(std::string_view operation, std::string_view name,
                              const ffi::AnyBuffer& buffer) {
  if (buffer.element_type() == ffi::S32) return ffi::Error::Success();
  return invalid_argument(operation, name, " must be S32, got ", buffer.element_type());
}

/// Fails unless `buffer` has the element type and the shape of `model`.
inline ffi::Error check_like(std::string_view operation, std::string_view name,
                             const ffi::AnyBuffer& buffer, std::string_view model_name,
                             const ffi::AnyBuffer& model) {
  if (buffer.element_type() != model.element_type()) {
    return invalid_argument(operation, name, " must be ", model.element_type(), " as ", model_name,
                            ", got ", buffer.element_type());
  }
  if (!std::ranges::equal(shape(buffer), shape(model))) {
    return invalid_argument(operation, name, " must have the shape ", Printed{shape(model)}, " of ",
                            model_name, ", got ", Printed{shape(buffer)});
  }
  return ffi::Error::Success();
}

}  // namespace pagedkv
