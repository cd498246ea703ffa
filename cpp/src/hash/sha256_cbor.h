#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "pagedkv/hash/page_hash.h"
#include "pagedkv/types.h"

/// `HashAlgorithm::kSha256Cbor`.
namespace pagedkv::sha256_cbor {

PageHash none_hash(std::string_view seed);

PageHash hash_page(const PageHash& parent, std::span<const TokenId> tokens,
                   std::span<const std::byte> extra);

}  // namespace pagedkv::sha256_cbor
