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

/// How a pool lies in memory: `[*batch, layers, *ids, *unit]`. A unit is what one id names, a row
/// for a slot and a page for a page id. A pool that is not layered has one layer.
struct PoolLayout {
  Shape batch;
  Shape unit;
  int64_t num_layers = 0;
  int64_t num_units = 0;  // in one layer
  int64_t unit_bytes = 0;

  /// First byte of a layer. Requires both arguments in range.
  int64_t offset(int64_t batch_index, int64_t layer) const {
    return (batch_index * num_layers + layer) * num_units * unit_bytes;
  }
};

/// Reads the layout of `pool`, whose unit ids run over `num_id_axes` axes. Fails if the rank is too
/// small, a unit is not a whole number of bytes, or a size does not fit in `int64_t`.
inline ffi::ErrorOr<PoolLayout> pool_layout(std::string_view operation, std::string_view name,
                                            const ffi::AnyBuffer& pool, size_t batch_rank,
                                            bool layered, size_t num_id_axes) {
  const Shape axes = shape(pool);
  const size_t num_leading_axes = batch_rank + (layered ? 1 : 0) + num_id_axes;
  if (axes.size() < num_leading_axes) {
    return ffi::Unexpected(invalid_argument(operation, name, " must have at least ",
                                            num_leading_axes, " axes, got ", Printed{axes}));
  }
  PoolLayout layout{.batch = axes.first(batch_rank), .unit = axes.subspan(num_leading_axes)};
  layout.num_layers = layered ? axes[batch_rank] : 1;

  const int64_t width = bits(pool.element_type());
  if (!num_bits(axes, width)) {
    return ffi::Unexpected(invalid_argument(operation, name, " of shape ", Printed{axes},
                                            " has more bits than int64 can count"));
  }
  const int64_t unit_bits = *num_bits(layout.unit, width);
  if (unit_bits % 8 != 0) {
    return ffi::Unexpected(invalid_argument(operation, "a unit ", Printed{layout.unit}, " of ",
                                            name, " has ", unit_bits, " bits of ",
                                            pool.element_type(), ", not a whole number of bytes"));
  }
  layout.num_units = *num_elements(axes.first(num_leading_axes).last(num_id_axes));
  layout.unit_bytes = unit_bits / 8;
  return layout;
}

}  // namespace pagedkv
