#include "request_handles.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "pagedkv/error.h"

namespace pagedkv {

RequestHandle RequestHandles::add(nb::handle object) {
  auto& request = nb::cast<Request&>(object);
  if (!known_.insert(&request).second) {
    throw_value_error("CacheManager.add_requests", "request '", request.request_id(),
                      "' has a handle already");
  }
  if (free_.empty()) {
    free_.push_back(static_cast<std::uint32_t>(entries_.size()));
    entries_.emplace_back();
  }
  const std::uint32_t place = free_.back();
  Entry& entry = entries_[place];
  entry.request = &request;
  entry.object = nb::borrow(object);
  free_.pop_back();
  return static_cast<RequestHandle>(std::uint64_t{entry.generation} << 32 | place);
}

RequestHandles::Entry* RequestHandles::find(RequestHandle handle) {
  const auto bits = static_cast<std::uint64_t>(handle);
  const std::uint64_t place = bits & 0xffffffff;
  if (place >= entries_.size()) return nullptr;
  Entry& entry = entries_[place];
  return entry.request != nullptr && entry.generation == bits >> 32 ? &entry : nullptr;
}

void RequestHandles::remove(RequestHandle handle) {
  Entry& entry = *find(handle);
  resolved_handles_.clear();
  const nb::object last = std::exchange(entry.object, nb::object());  // goes when all is done
  known_.erase(entry.request);
  entry.request = nullptr;
  entry.generation = (entry.generation + 1) & 0x7fffffff;  // handles are not negative
  free_.push_back(static_cast<std::uint32_t>(&entry - entries_.data()));
}

RequestHandles::Entry& RequestHandles::at(std::span<const RequestHandle> handles, std::size_t i,
                                          const char* operation) {
  Entry* entry = find(handles[i]);
  if (entry == nullptr) {
    throw_value_error(operation, "handle ", handles[i], " at position ", i,
                      " is of no request (removed already, or never added)");
  }
  check_not_in_use(*entry->request, operation);
  return *entry;
}

void RequestHandles::check_not_in_use(Request& request, const char* operation) {
  if (!request.use_flag().in_use()) return;
  throw std::runtime_error(
      error_message(operation, "request '", request.request_id(), "' is in use by another thread"));
}

std::span<Request* const> RequestHandles::resolve(std::span<const RequestHandle> handles,
                                                  const char* operation) {
  // The calls of one step mostly have the same handles.
  if (!handles.empty() && std::ranges::equal(handles, resolved_handles_)) {
    for (Request* request : resolved_) check_not_in_use(*request, operation);
    return resolved_;
  }
  resolved_handles_.clear();
  resolved_.resize(handles.size());
  if (++call_ == 0) {  // once in 2^32 calls
    for (Entry& entry : entries_) entry.last_call = 0;
    call_ = 1;
  }
  for (std::size_t i = 0; i < handles.size(); ++i) {
    Entry& entry = at(handles, i, operation);
    if (std::exchange(entry.last_call, call_) == call_) {
      throw_value_error(operation, "request '", entry.request->request_id(),
                        "' is there twice, the second time at position ", i);
    }
    resolved_[i] = entry.request;
  }
  resolved_handles_.assign(handles.begin(), handles.end());
  return resolved_;
}

std::vector<Request*> RequestHandles::resolve_repeated(std::span<const RequestHandle> handles,
                                                       const char* operation) {
  std::vector<Request*> requests;
  requests.reserve(handles.size());
  for (std::size_t i = 0; i < handles.size(); ++i) {
    requests.push_back(at(handles, i, operation).request);
  }
  return requests;
}

void RequestHandles::clear() {
  resolved_handles_.clear();
  free_.clear();
  known_.clear();
  std::exchange(entries_, {});  // last: it may run code of Python
}

int RequestHandles::traverse(visitproc visit, void* arg) const {
  for (const Entry& entry : entries_) Py_VISIT(entry.object.ptr());
  return 0;
}

}  // namespace pagedkv
