#pragma once

#include "pagedkv/bytes.h"
#include "pagedkv/spec/cache_group_spec.h"

/// Specs in files of ours: the name of the type, then its fields in the order of its constructor.
/// An optional field is 0, or 1 and its value.
namespace pagedkv {

void put_spec(ByteWriter& writer, const AnyCacheSpec& spec);

/// Throws `std::invalid_argument` for an unknown name, and as the type's constructor does.
AnyCacheSpec get_spec(ByteReader& reader);

}  // namespace pagedkv
