#include "pagedkv/trace/request_bytes.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace pagedkv {
namespace {

void put_embeds(ByteWriter& writer, const PromptEmbeds& embeds) {
  writer.put_int(embeds.page_size());
  writer.put_uint(embeds.num_rows());
  writer.put_uint(embeds.page_digests().size());
  for (const Sha256Digest& digest : embeds.page_digests()) writer.put_raw(digest);
}

PromptEmbeds get_embeds(ByteReader& reader) {
  const auto page_size = reader.get_int_as<std::int32_t>();
  const std::uint64_t num_rows = reader.get_uint();
  std::vector<Sha256Digest> digests(reader.get_count(sizeof(Sha256Digest)));
  for (Sha256Digest& digest : digests) {
    std::ranges::copy(reader.get_raw(digest.size()), digest.begin());
  }
  return PromptEmbeds::of_digests(digests, num_rows, page_size);
}

void put_term(ByteWriter& writer, const RetentionTerm& term) {
  writer.put_int(term.priority);
  writer.put_int(term.ttl);
  writer.put_int(term.tenant);
}

RetentionTerm get_term(ByteReader& reader) {
  RetentionTerm term;
  term.priority = reader.get_int_as<std::int32_t>();
  term.ttl = reader.get_int();
  term.tenant = reader.get_int();
  return term;
}

void put_retention(ByteWriter& writer, const Retention& retention) {
  put_term(writer, retention.term());
  put_term(writer, retention.decoded());
  writer.put_uint(retention.ranges().size());
  for (const RetentionRange& range : retention.ranges()) {
    writer.put_int(range.begin);
    writer.put_int(range.end);
    writer.put_int(range.priority);
    writer.put_int(range.ttl);
  }
}

std::shared_ptr<const Retention> get_retention(ByteReader& reader) {
  const RetentionTerm term = get_term(reader);
  const RetentionTerm decoded = get_term(reader);
  std::vector<RetentionRange> ranges(reader.get_count(4));
  for (RetentionRange& range : ranges) {
    range.begin = reader.get_int_as<std::int32_t>();
    range.end = reader.get_int_as<std::int32_t>();
    range.priority = reader.get_int_as<std::int32_t>();
    range.ttl = reader.get_int();
  }
  return std::make_shared<const Retention>(term, std::move(ranges), decoded);
}

}  // namespace

void put_request(ByteWriter& writer, const Request& request) {
  const ExtraKeys& keys = request.extra_keys();
  writer.put_text(request.request_id());
  writer.put_ints(request.tokens());
  writer.put_int(request.num_encoder_tokens());
  writer.put_uint(keys.lora().has_value());
  if (keys.lora()) {
    writer.put_text(keys.lora()->name);
    writer.put_text(keys.lora()->path);
  }
  writer.put_uint(keys.mm_items().size());
  for (const MultimodalItem& item : keys.mm_items()) {
    writer.put_text(item.identifier);
    writer.put_int(item.offset);
    writer.put_int(item.length);
  }
  writer.put_uint(keys.cache_salt().has_value());
  if (keys.cache_salt()) writer.put_text(*keys.cache_salt());
  writer.put_uint(keys.prompt_embeds().has_value());
  if (keys.prompt_embeds()) put_embeds(writer, *keys.prompt_embeds());
  writer.put_uint(request.retention() != nullptr);
  if (request.retention() == nullptr) return;
  put_retention(writer, *request.retention());
  writer.put_int(request.num_prompt_tokens());
}

std::unique_ptr<Request> get_request(ByteReader& reader) {
  std::string request_id = reader.get_text();
  std::vector<TokenId> tokens = reader.get_ints();
  const auto num_encoder_tokens = reader.get_int_as<std::int32_t>();
  std::optional<LoraKey> lora;
  if (reader.get_bool()) {
    std::string name = reader.get_text();
    lora = {std::move(name), reader.get_text()};
  }
  std::vector<MultimodalItem> items(reader.get_count(3));
  for (MultimodalItem& item : items) {
    item.identifier = reader.get_text();
    item.offset = reader.get_int_as<std::int32_t>();
    item.length = reader.get_int_as<std::int32_t>();
  }
  std::optional<std::string> salt;
  if (reader.get_bool()) salt = reader.get_text();
  std::optional<PromptEmbeds> embeds;
  if (reader.get_bool()) embeds = get_embeds(reader);
  auto request = std::make_unique<Request>(
      std::move(request_id), std::move(tokens),
      ExtraKeys(std::move(lora), std::move(items), std::move(salt), std::move(embeds)),
      num_encoder_tokens);
  if (reader.get_bool()) {
    auto retention = get_retention(reader);
    request->retain(std::move(retention), reader.get_int_as<std::int32_t>());
  }
  return request;
}

}  // namespace pagedkv
