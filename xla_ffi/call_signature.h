#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace pagedkv {

/// What a handler can know of a call before it looks at memory: the attributes, and the dtypes and
/// shapes of all operands and results.
///
/// A program makes the same call again and again, and to decode and check it costs as much as to
/// copy a few rows. To find that it is the same costs a tenth of that.
class CallSignature {
 public:
  /// Takes on the signature of `call`. One with an operand that is no array, or an attribute that
  /// is neither a number nor a string, has none that would match anything.
  void assign(const XLA_FFI_CallFrame& call) {
    words_ = {call.stage, call.args.size, call.rets.size, call.attrs.size};
    text_.clear();
    const bool is_known = add_buffers(call.args.size, call.args.types, call.args.args) &&
                          add_buffers(call.rets.size, call.rets.types, call.rets.rets) &&
                          add_attributes(call.attrs);
    if (!is_known) words_.clear();
  }

  /// Whether `call` is of this signature, in every word and every byte. An address proves nothing:
  /// that of a program which is gone may be another's.
  bool matches(const XLA_FFI_CallFrame& call) const {
    const int64_t* word = words_.data();
    if (words_.empty() || word[0] != call.stage || word[1] != call.args.size ||
        word[2] != call.rets.size || word[3] != call.attrs.size) {
      return false;
    }
    word += 4;
    return same_buffers(call.args.size, call.args.types, call.args.args, word) &&
           same_buffers(call.rets.size, call.rets.types, call.rets.rets, word) &&
           same_attributes(call.attrs, word);
  }

 private:
  static int64_t header(const XLA_FFI_Buffer& buffer) {
    return static_cast<int64_t>(buffer.dtype) << 32 | buffer.rank;
  }
  static bool is_buffer(XLA_FFI_ArgType type) { return type == XLA_FFI_ArgType_BUFFER; }
  static bool is_buffer(XLA_FFI_RetType type) { return type == XLA_FFI_RetType_BUFFER; }

  // The bytes of an attribute that is a number or a string.
  static std::string_view bytes(XLA_FFI_AttrType type, const void* attribute) {
    if (type == XLA_FFI_AttrType_STRING) {
      const auto* string = static_cast<const XLA_FFI_ByteSpan*>(attribute);
      return {string->ptr, string->len};
    }
    const auto* scalar = static_cast<const XLA_FFI_Scalar*>(attribute);
    return {static_cast<const char*>(scalar->value), num_bytes(scalar->dtype)};
  }
  static size_t num_bytes(XLA_FFI_DataType dtype) {
    return xla::ffi::ByteWidth(static_cast<xla::ffi::DataType>(dtype));
  }
  static int64_t kind(XLA_FFI_AttrType type, const void* attribute) {
    if (type == XLA_FFI_AttrType_STRING) return -1;
    return static_cast<const XLA_FFI_Scalar*>(attribute)->dtype;
  }

  template <typename Type>
  bool add_buffers(int64_t size, const Type* types, void* const* buffers) {
    for (int64_t i = 0; i < size; ++i) {
      if (!is_buffer(types[i])) return false;
      const auto& buffer = *static_cast<const XLA_FFI_Buffer*>(buffers[i]);
      words_.push_back(header(buffer));
      words_.insert(words_.end(), buffer.dims, buffer.dims + buffer.rank);
    }
    return true;
  }

  bool add_attributes(const XLA_FFI_Attrs& attributes) {
    for (int64_t i = 0; i < attributes.size; ++i) {
      const XLA_FFI_AttrType type = attributes.types[i];
      if (type != XLA_FFI_AttrType_STRING && type != XLA_FFI_AttrType_SCALAR) return false;
      const std::string_view name{attributes.names[i]->ptr, attributes.names[i]->len};
      const std::string_view value = bytes(type, attributes.attrs[i]);
      words_.insert(words_.end(), {kind(type, attributes.attrs[i]),
                                   static_cast<int64_t>(name.size() << 32 | value.size())});
      text_.append(name).append(value);
    }
    return true;
  }

  // Here and below `word` goes on by what was equal. After a header that is, so many axes follow.
  template <typename Type>
  static bool same_buffers(int64_t size, const Type* types, void* const* buffers,
                           const int64_t*& word) {
    int64_t difference = 0;
    for (int64_t i = 0; i < size; ++i) {
      if (!is_buffer(types[i])) return false;
      const auto& buffer = *static_cast<const XLA_FFI_Buffer*>(buffers[i]);
      if (*word++ != header(buffer)) return false;
      for (int64_t axis = 0; axis < buffer.rank; ++axis) difference |= *word++ ^ buffer.dims[axis];
    }
    return difference == 0;
  }

  bool same_attributes(const XLA_FFI_Attrs& attributes, const int64_t* word) const {
    const char* text = text_.data();
    for (int64_t i = 0; i < attributes.size; ++i) {
      const XLA_FFI_AttrType type = attributes.types[i];
      if (type != XLA_FFI_AttrType_STRING && type != XLA_FFI_AttrType_SCALAR) return false;
      if (*word++ != kind(type, attributes.attrs[i])) return false;
      const XLA_FFI_ByteSpan& name = *attributes.names[i];
      const std::string_view value = bytes(type, attributes.attrs[i]);
      if (*word++ != static_cast<int64_t>(name.len << 32 | value.size())) return false;
      if (std::string_view{text, name.len} != std::string_view{name.ptr, name.len}) return false;
      text += name.len;
      if (std::string_view{text, value.size()} != value) return false;
      text += value.size();
    }
    return true;
  }

  std::vector<int64_t> words_;  // empty if it matches nothing
  std::string text_;            // of the attributes: a name, its value, the next name
};

}  // namespace pagedkv
