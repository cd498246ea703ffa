#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "pagedkv/bytes.h"
#include "pagedkv/manager/manager_calls.h"

/// Calls in a trace: the code, then the arguments in turn. A request is its number in the trace.
namespace pagedkv {

/// What a call that was read points to.
struct CallStorage {
  GroupPages prefix;
  GroupPages found;
  std::vector<PageCopies> copies;
};

/// The request that a call is about, or null.
Request* request_of(const ManagerCall& call);

/// All requests that a call names, in the order of its arguments.
std::vector<Request*> requests_of(const ManagerCall& call);

/// The pages that a call has found, or null.
const GroupPages* found_by(const ManagerCall& call);

void put_call(ByteWriter& writer, const ManagerCall& call,
              const std::function<std::uint64_t(Request*)>& number_of);

/// The call points into `storage`, and to what `reader` reads. `request_of` gives the request of a
/// number, or throws. Throws `std::invalid_argument` for an unknown code.
ManagerCall get_call(ByteReader& reader, const std::function<Request*(std::uint64_t)>& request_of,
                     CallStorage& storage);

/// As a reader would write it: "commit(request='a', num_computed_tokens=5)".
std::string text_of(const ManagerCall& call);

void make(CacheManager& manager, const ManagerCall& call);

/// Rows of page ids: how many rows, and for each how many pages and which.
void put_rows(ByteWriter& writer, const GroupPages& rows);
GroupPages get_rows(ByteReader& reader);

/// "[3 4 5], [6]"
std::string text_of(const GroupPages& rows);

}  // namespace pagedkv
