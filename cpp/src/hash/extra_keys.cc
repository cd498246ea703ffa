#include "pagedkv/hash/extra_keys.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "pagedkv/error.h"
#include "pagedkv/hash/cbor.h"
#include "pagedkv/math.h"

namespace pagedkv {
namespace {

constexpr std::string_view kOperation = "ExtraKeys";

void check_item(const MultimodalItem& item) {
  if (item.identifier.empty()) {
    throw_value_error(kOperation, "the identifier of a multimodal item must not be empty");
  }
  if (item.offset < 0 || item.length < 1) {
    throw_value_error(kOperation, "multimodal item '", item.identifier,
                      "' must have offset >= 0 and length >= 1, got ", item.offset, " and ",
                      item.length);
  }
}

}  // namespace

PromptEmbeds::PromptEmbeds(std::span<const std::byte> rows, std::size_t num_rows,
                           std::int32_t page_size)
    : page_size_(page_size), num_rows_(num_rows) {
  if (page_size < 1) {
    throw_value_error("PromptEmbeds", "page_size must be at least 1, got ", page_size);
  }
  if (rows.empty() || num_rows == 0 || rows.size() % num_rows != 0) {
    throw_value_error("PromptEmbeds", "rows must be of equal size and not empty, got ", num_rows,
                      " rows of ", rows.size(), " bytes in all");
  }
  const std::size_t page_bytes = rows.size() / num_rows * static_cast<std::size_t>(page_size);
  for (; !rows.empty(); rows = rows.subspan(std::min(page_bytes, rows.size()))) {
    digests_.push_back(sha256(rows.first(std::min(page_bytes, rows.size()))));
  }
  digests_.push_back(sha256({}));
}

PromptEmbeds PromptEmbeds::of_digests(std::span<const Sha256Digest> page_digests,
                                      std::size_t num_rows, std::int32_t page_size) {
  if (page_size < 1) {
    throw_value_error("PromptEmbeds", "page_size must be at least 1, got ", page_size);
  }
  if (num_rows == 0 ||
      page_digests.size() != ceil_div(num_rows, static_cast<std::size_t>(page_size))) {
    throw_value_error("PromptEmbeds", num_rows, " rows in pages of ", page_size,
                      " must have a digest a page, got ", page_digests.size());
  }
  PromptEmbeds embeds(page_size, num_rows);
  embeds.digests_.assign(page_digests.begin(), page_digests.end());
  embeds.digests_.push_back(sha256({}));
  return embeds;
}

const Sha256Digest& PromptEmbeds::digest(std::size_t page) const {
  return digests_[std::min(page, digests_.size() - 1)];
}

ExtraKeys::ExtraKeys(std::optional<LoraKey> lora, std::vector<MultimodalItem> mm_items,
                     std::optional<std::string> cache_salt,
                     std::optional<PromptEmbeds> prompt_embeds)
    : lora_(std::move(lora)),
      mm_items_(std::move(mm_items)),
      cache_salt_(std::move(cache_salt)),
      prompt_embeds_(std::move(prompt_embeds)) {
  if (lora_ && lora_->name.empty()) {
    throw_value_error(kOperation, "the name of an adapter must not be empty");
  }
  if (cache_salt_ && cache_salt_->empty()) {
    throw_value_error(kOperation, "cache_salt must not be empty: it would separate nothing");
  }
  std::ranges::for_each(mm_items_, check_item);
  std::ranges::stable_sort(mm_items_, {}, &MultimodalItem::offset);
  std::int64_t furthest = 0;
  for (const MultimodalItem& item : mm_items_) {
    furthest = std::max(furthest, item.offset + item.length);
    furthest_ends_.push_back(furthest);
  }
}

std::vector<const MultimodalItem*> ExtraKeys::items_of(std::int64_t begin, std::int64_t end) const {
  std::vector<const MultimodalItem*> items;
  const auto first = std::ranges::upper_bound(furthest_ends_, begin) - furthest_ends_.begin();
  for (const MultimodalItem& item : mm_items().subspan(static_cast<std::size_t>(first))) {
    if (item.offset >= end) break;
    if (item.offset + item.length > begin) items.push_back(&item);
  }
  return items;
}

void ExtraKeys::encode_page(std::size_t page, std::int32_t page_size,
                            std::vector<std::byte>& encoded) const {
  encoded.clear();
  const std::int64_t begin = static_cast<std::int64_t>(page) * page_size;
  const auto items = items_of(begin, begin + page_size);
  const bool is_salted = cache_salt_ && page == 0;
  const std::size_t num_keys = std::size_t{lora_.has_value()} + items.size() +
                               std::size_t{is_salted} + std::size_t{prompt_embeds_.has_value()};
  if (num_keys == 0) return;
  if (prompt_embeds_ && prompt_embeds_->page_size() != page_size) {
    throw_value_error(kOperation, "prompt embeddings were hashed for pages of ",
                      prompt_embeds_->page_size(), " tokens, pages have ", page_size);
  }

  constexpr std::size_t kMaxKeyBytes = 64;  // heads, the word in front, an offset or a digest
  std::size_t max_bytes = CborWriter::kMaxHeadBytes + CborWriter::kSlackBytes;
  max_bytes += num_keys * kMaxKeyBytes;
  if (lora_) max_bytes += lora_->name.size() + lora_->path.size();
  for (const MultimodalItem* item : items) max_bytes += item->identifier.size();
  if (is_salted) max_bytes += cache_salt_->size();
  encoded.resize(max_bytes);

  CborWriter writer(encoded);
  writer.write_array_head(num_keys);
  if (lora_) {
    writer.write_array_head(3);
    writer.write_text("lora");
    writer.write_text(lora_->name);
    writer.write_text(lora_->path);
  }
  for (const MultimodalItem* item : items) {
    writer.write_array_head(3);
    writer.write_text("mm");
    writer.write_text(item->identifier);
    writer.write_int(item->offset - begin);
  }
  if (is_salted) {
    writer.write_array_head(2);
    writer.write_text("cache_salt");
    writer.write_text(*cache_salt_);
  }
  if (prompt_embeds_) {
    writer.write_array_head(2);
    writer.write_text("prompt_embeds");
    writer.write_bytes(prompt_embeds_->digest(page));
  }
  encoded.resize(writer.size());
}

}  // namespace pagedkv
