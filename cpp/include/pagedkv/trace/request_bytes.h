#pragma once

#include <memory>

#include "pagedkv/bytes.h"
#include "pagedkv/manager/request.h"

namespace pagedkv {

/// Writes all that a request was made of, and its tokens so far: id, tokens, encoder tokens,
/// adapter, multimodal items, salt, prompt embeddings. What may be missing is 0, or 1 and its
/// value.
void put_request(ByteWriter& writer, const Request& request);

/// Throws `std::invalid_argument` as the constructors of `Request` and `ExtraKeys` do.
std::unique_ptr<Request> get_request(ByteReader& reader);

}  // namespace pagedkv
