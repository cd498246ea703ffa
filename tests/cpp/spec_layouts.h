#pragma once

#include <gmock/gmock.h>

#include <functional>
#include <stdexcept>
#include <string>

#include "pagedkv/spec/attention_spec.h"

namespace pagedkv {

/// A page of `page_size` tokens, one head of `head_size` bytes for K and as many for V.
inline AttentionLayout byte_layout(std::int32_t page_size, std::int32_t head_size = 8) {
  return {
      .page_size = page_size, .num_kv_heads = 1, .head_size = head_size, .dtype = DType("int8")};
}

/// Expects `make()` to refuse with `message`.
inline void expect_refusal(const std::function<void()>& make, const std::string& message) {
  try {
    make();
    FAIL() << "no exception, expected: " << message;
  } catch (const std::invalid_argument& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr(message));
  }
}

}  // namespace pagedkv
