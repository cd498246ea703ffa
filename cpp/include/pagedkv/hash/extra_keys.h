#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pagedkv/hash/sha256.h"

namespace pagedkv {

/// An adapter that changes what the model computes for every token.
struct LoraKey {
  std::string name;
  std::string path;  ///< Another adapter of the same name has another path.

  friend bool operator==(const LoraKey&, const LoraKey&) = default;
};

/// An image, a sound or the like, whose placeholder tokens are `[offset, offset + length)`.
struct MultimodalItem {
  std::string identifier;  ///< Names the content: equal content, equal identifier.
  std::int64_t offset = 0;
  std::int64_t length = 0;

  friend bool operator==(const MultimodalItem&, const MultimodalItem&) = default;
};

/// Digests of the embeddings that a prompt gives in place of tokens, one for each page they reach.
class PromptEmbeds {
 public:
  /// `rows` are `num_rows` embeddings of equal size, of the first tokens of the prompt.
  ///
  /// Throws `std::invalid_argument` if `page_size < 1`, or if `rows` is empty or does not divide.
  PromptEmbeds(std::span<const std::byte> rows, std::size_t num_rows, std::int32_t page_size);

  /// As they were read from a file: the digests of the pages that the rows reach.
  ///
  /// Throws `std::invalid_argument` if `page_size < 1`, unless there is a row, and one digest a
  /// page.
  static PromptEmbeds of_digests(std::span<const Sha256Digest> page_digests, std::size_t num_rows,
                                 std::int32_t page_size);

  std::int32_t page_size() const { return page_size_; }
  std::size_t num_rows() const { return num_rows_; }

  /// Digests of the pages that the rows reach.
  std::span<const Sha256Digest> page_digests() const {
    return std::span(digests_).first(digests_.size() - 1);
  }

  /// SHA-256 of the embeddings of page `page`: of no bytes at all, past the last of them.
  const Sha256Digest& digest(std::size_t page) const;

  friend bool operator==(const PromptEmbeds&, const PromptEmbeds&) = default;

 private:
  PromptEmbeds(std::int32_t page_size, std::size_t num_rows)
      : page_size_(page_size), num_rows_(num_rows) {}

  std::int32_t page_size_;
  std::size_t num_rows_;
  std::vector<Sha256Digest> digests_;  // the last is that of no bytes
};

/// What besides the tokens decides the content of a request's pages.
///
/// Each page has keys of its own: a page that no multimodal item reaches is shared with requests
/// that have none, up to the first page that differs. The encoding of a page's keys is the
/// canonical CBOR of the tuple that vLLM hashes (0.33.0, vllm/v1/core/kv_cache_utils.py,
/// `generate_block_hash_extra_keys`). For the page of tokens `[begin, end)`, in this order:
///
///  1. `("lora", name, path)` on every page, if there is an adapter;
///  2. `("mm", identifier, offset - begin)` for each item with `offset < end` and
///     `offset + length > begin`, by rising offset. An item that began on an earlier page gives a
///     number below 0: each page of an item has a key of its own;
///  3. `("cache_salt", salt)` on the first page only. The pages after it differ by their parent;
///  4. `("prompt_embeds", digest)` on every page, if the request has embeddings at all.
///
/// The words in front keep a salt that reads like an adapter's name from being taken for one.
/// A page without keys has no tuple: vLLM hashes None. vLLM takes items not to overlap, and would
/// miss the later of two that do; here all of them count.
class ExtraKeys {
 public:
  ExtraKeys() = default;

  /// Items may come in any order.
  ///
  /// Throws `std::invalid_argument` for an empty adapter name, identifier or salt, a negative
  /// offset, and a length below 1.
  ExtraKeys(std::optional<LoraKey> lora, std::vector<MultimodalItem> mm_items,
            std::optional<std::string> cache_salt, std::optional<PromptEmbeds> prompt_embeds = {});

  /// True iff no page has keys.
  bool empty() const { return !lora_ && mm_items_.empty() && !cache_salt_ && !prompt_embeds_; }

  const std::optional<LoraKey>& lora() const { return lora_; }
  const std::optional<std::string>& cache_salt() const { return cache_salt_; }
  const std::optional<PromptEmbeds>& prompt_embeds() const { return prompt_embeds_; }

  /// By rising offset.
  std::span<const MultimodalItem> mm_items() const { return mm_items_; }

  /// Items that reach into tokens `[begin, end)`, by rising offset.
  std::vector<const MultimodalItem*> items_of(std::int64_t begin, std::int64_t end) const;

  /// Replaces `encoded` by the keys of page `page` of `page_size` tokens, as canonical CBOR: by
  /// nothing if the page has none.
  ///
  /// Throws `std::invalid_argument` if prompt embeddings were hashed for another page size.
  void encode_page(std::size_t page, std::int32_t page_size, std::vector<std::byte>& encoded) const;

  friend bool operator==(const ExtraKeys&, const ExtraKeys&) = default;

 private:
  std::optional<LoraKey> lora_;
  std::vector<MultimodalItem> mm_items_;
  std::vector<std::int64_t> furthest_ends_;  // of the items up to each
  std::optional<std::string> cache_salt_;
  std::optional<PromptEmbeds> prompt_embeds_;
};

}  // namespace pagedkv
