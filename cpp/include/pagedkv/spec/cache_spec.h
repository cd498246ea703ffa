#pragma once

#include <cstdint>
#include <utility>

#include "pagedkv/spec/dtype.h"

namespace pagedkv {

/// What one layer keeps in the cache, and in pages of what size. Immutable.
class CacheSpec {
 public:
  virtual ~CacheSpec() = default;

  /// Tokens a page holds.
  std::int32_t page_size() const { return page_size_; }

  /// Bytes one page of one layer takes.
  virtual std::int64_t page_size_bytes() const = 0;

 protected:
  /// Throws `std::invalid_argument` unless `page_size >= 1`.
  explicit CacheSpec(std::int32_t page_size);
  CacheSpec(const CacheSpec&) = default;
  CacheSpec& operator=(const CacheSpec&) = default;

 private:
  std::int32_t page_size_;
};

/// A layer that keeps K and V of tokens: per token, `num_kv_heads` rows of `head_size` elements.
class AttentionSpec : public CacheSpec {
 public:
  std::int32_t num_kv_heads() const { return num_kv_heads_; }
  std::int32_t head_size() const { return head_size_; }
  const DType& dtype() const { return dtype_; }

  /// True iff one latent row stands for K and V (multi-head latent attention).
  bool use_mla() const { return use_mla_; }

  /// `page_size * num_kv_heads * head_size * bits / 8`, times 2 unless `use_mla()`.
  std::int64_t page_size_bytes() const override { return page_size_bytes_; }

 protected:
  /// Throws `std::invalid_argument` unless every size is >= 1, a page is whole bytes, and its
  /// size fits in 63 bits.
  AttentionSpec(std::int32_t page_size, std::int32_t num_kv_heads, std::int32_t head_size,
                DType dtype, bool use_mla);

 private:
  std::int32_t num_kv_heads_;
  std::int32_t head_size_;
  DType dtype_;
  bool use_mla_;
  std::int64_t page_size_bytes_;
};

/// A layer whose attention sees every earlier token: all K/V is kept.
class FullAttentionSpec final : public AttentionSpec {
 public:
  FullAttentionSpec(std::int32_t page_size, std::int32_t num_kv_heads, std::int32_t head_size,
                    DType dtype, bool use_mla = false)
      : AttentionSpec(page_size, num_kv_heads, head_size, std::move(dtype), use_mla) {}
};

}  // namespace pagedkv
