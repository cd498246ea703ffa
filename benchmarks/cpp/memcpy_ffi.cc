// The rivals of the page ops: XLA FFI handlers that copy and do nothing else. No checks, no
// layouts, one thread: what a memcpy of the same rows costs from inside a jitted program.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

size_t row_bytes(const ffi::AnyBuffer& buffer, size_t num_rows) {
  return num_rows == 0 ? 0 : buffer.size_bytes() / num_rows;
}

ffi::Error write_rows(ffi::Buffer<ffi::S32> slots, ffi::AnyBuffer, ffi::AnyBuffer,
                      ffi::AnyBuffer key, ffi::AnyBuffer value,
                      ffi::Result<ffi::AnyBuffer> key_pages,
                      ffi::Result<ffi::AnyBuffer> value_pages) {
  const size_t num_rows = slots.element_count();
  const size_t key_bytes = row_bytes(key, num_rows), value_bytes = row_bytes(value, num_rows);
  const auto* keys = static_cast<const std::byte*>(key.untyped_data());
  const auto* values = static_cast<const std::byte*>(value.untyped_data());
  auto* key_pool = static_cast<std::byte*>(key_pages->untyped_data());
  auto* value_pool = static_cast<std::byte*>(value_pages->untyped_data());
  for (size_t i = 0; i < num_rows; ++i) {
    const auto slot = static_cast<size_t>(slots.typed_data()[i]);
    std::memcpy(key_pool + slot * key_bytes, keys + i * key_bytes, key_bytes);
    std::memcpy(value_pool + slot * value_bytes, values + i * value_bytes, value_bytes);
  }
  return ffi::Error::Success();
}

ffi::Error gather(ffi::AnyBuffer pages, ffi::Buffer<ffi::S32> ids, ffi::AnyBuffer,
                  ffi::Result<ffi::AnyBuffer> rows) {
  const size_t num_rows = ids.element_count();
  const size_t page_bytes = row_bytes(*rows, num_rows);
  const auto* pool = static_cast<const std::byte*>(pages.untyped_data());
  auto* out = static_cast<std::byte*>(rows->untyped_data());
  for (size_t i = 0; i < num_rows; ++i) {
    std::memcpy(out + i * page_bytes, pool + static_cast<size_t>(ids.typed_data()[i]) * page_bytes,
                page_bytes);
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(BenchWriteRows, write_rows,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(BenchGather, gather,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());
