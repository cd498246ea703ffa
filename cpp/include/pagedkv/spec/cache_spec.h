#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace pagedkv {

/// What bounds the tokens that one request keeps in the cache. Each at least 0.
struct RequestLimits {
  /// Tokens of the longest request, prompt and output.
  std::int64_t max_model_len = 0;
  /// Tokens the largest step computes, all requests together.
  std::int64_t max_num_batched_tokens = 0;
  /// Tokens of the longest encoder input, which cross attention keeps.
  std::int64_t max_encoder_tokens = 0;
};

/// What one layer keeps in the cache, and in pages of what size.
///
/// Specs are immutable values: copied, compared and hashed by what they say. The base holds what a
/// page table needs to know; an attention type adds its own header. The arithmetic of pages and
/// the names of the fields are those of vLLM and EasyDeL, with "page" for "block".
class CacheSpec {
 public:
  virtual ~CacheSpec() = default;

  /// Tokens a page holds.
  std::int32_t page_size() const { return page_size_; }

  /// Bytes one page of one layer takes in memory: `page_size_padded()` if it is set.
  std::int64_t page_size_bytes() const { return page_size_padded_.value_or(real_page_size_bytes_); }

  /// Bytes of a page that carry data.
  std::int64_t real_page_size_bytes() const { return real_page_size_bytes_; }

  /// Bytes a page is padded to, so that layers of different kinds can have pages of one size.
  std::optional<std::int64_t> page_size_padded() const { return page_size_padded_; }

  /// Equal for layers that ask the same of a page table, such as "full_attention_16_12288".
  virtual std::string type_id() const = 0;

  /// The kind of cache by the name vLLM's KV events give it, such as "mla_attention".
  virtual std::string_view kind() const = 0;

  /// Pages that one request within `limits` holds at most at a time.
  virtual std::int64_t max_pages_per_request(const RequestLimits& limits) const = 0;

  /// `max_pages_per_request(limits) * page_size_bytes()`: what one layer needs for one request.
  ///
  /// Throws `std::invalid_argument` for a limit below 0, or if the bytes do not fit in 63 bits.
  std::int64_t max_memory_usage_bytes(const RequestLimits& limits) const;

 protected:
  /// `spec` is the name of the type, for messages. Throws `std::invalid_argument` unless
  /// `page_size >= 1` and `page_size_padded >= real_page_size_bytes >= 0`.
  CacheSpec(std::string_view spec, std::int32_t page_size, std::int64_t real_page_size_bytes,
            std::optional<std::int64_t> page_size_padded);
  CacheSpec(const CacheSpec&) = default;
  CacheSpec& operator=(const CacheSpec&) = default;

 private:
  std::int32_t page_size_;
  std::int64_t real_page_size_bytes_;
  std::optional<std::int64_t> page_size_padded_;
};

/// Throws `std::invalid_argument` unless `value >= 1`: "[spec] what must be >= 1, got value".
void check_at_least_one(std::string_view spec, std::string_view what, std::int64_t value);

/// `a * b`; throws `std::invalid_argument` if it does not fit in 63 bits. Requires both >= 0.
std::int64_t page_product(std::string_view spec, std::int64_t a, std::int64_t b);

/// Throws `std::invalid_argument` unless layers of `a` and `b` can share a page table: same
/// `type_id()`, `page_size()` and `page_size_bytes()`.
void check_mergeable(std::string_view spec, const CacheSpec& a, const CacheSpec& b);

}  // namespace pagedkv
