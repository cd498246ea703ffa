#pragma once

#include <cstdint>
#include <span>
#include <unordered_set>
#include <vector>

#include "bindings.h"
#include "pagedkv/manager/request.h"

namespace pagedkv {

/// Names a request to a manager: its place in the low 32 bits, and which of those that had the
/// place it is in the high ones, so that the handle of one that is gone is noticed.
using RequestHandle = std::int64_t;

/// The requests that a manager knows by handle, and a Python reference to each.
class RequestHandles {
 public:
  /// Throws `std::invalid_argument` if the request has a handle already.
  RequestHandle add(nb::handle object);

  /// Forgets a request. Throws as `resolve`.
  void remove(RequestHandle handle);

  /// The requests of `handles`, valid until the next call. None is there twice.
  ///
  /// Throws `std::invalid_argument` for a handle of no request, or one that is given twice;
  /// `std::runtime_error` if another thread uses the request.
  std::span<Request* const> resolve(std::span<const RequestHandle> handles, const char* operation);

  /// As `resolve`, but a handle may be there twice, and the requests are the caller's to keep.
  std::vector<Request*> resolve_repeated(std::span<const RequestHandle> handles,
                                         const char* operation);

  void clear();

  /// For Python's cycle collector.
  int traverse(visitproc visit, void* arg) const;

 private:
  struct Entry {
    Request* request = nullptr;  ///< Null: the entry is free.
    std::uint32_t generation = 0;
    std::uint32_t last_call = 0;  ///< In which it was resolved.
    nb::object object;
  };

  Entry* find(RequestHandle handle);
  Entry& at(std::span<const RequestHandle> handles, std::size_t i, const char* operation);
  static void check_not_in_use(Request& request, const char* operation);

  std::vector<Entry> entries_;
  std::unordered_set<const Request*> known_;
  std::vector<std::uint32_t> free_;
  std::vector<Request*> resolved_;
  std::vector<RequestHandle> resolved_handles_;  // what `resolved_` is of
  std::uint32_t call_ = 0;
};

}  // namespace pagedkv
