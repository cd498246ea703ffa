#include "pagedkv/trace/op_recorder.h"

#include <algorithm>
#include <exception>
#include <functional>
#include <new>
#include <utility>

#include "pagedkv/error.h"
#include "pagedkv/manager/config_bytes.h"
#include "pagedkv/trace/call_bytes.h"
#include "pagedkv/trace/request_bytes.h"

namespace pagedkv {
namespace {

CacheManager& check_new(CacheManager& manager) {
  constexpr auto kOperation = "OpRecorder";
  if (manager.is_observed()) throw_value_error(kOperation, "the manager is recorded already");
  const PagePool& pool = manager.pool();
  if (pool.num_held_pages() > 0 || pool.num_cached_pages() > 0 ||
      !std::ranges::is_sorted(pool.free_pages())) {
    throw_value_error(kOperation, "the manager must be as new, it has ", manager.num_requests(),
                      " requests with pages, ", pool.num_cached_pages(), " cached pages and ",
                      pool.counts().num_allocated, " pages allocated so far");
  }
  if (pool.now() != 0 || pool.keeps_terms() || manager.pins().num_made() > 0) {
    throw_value_error(kOperation,
                      "the manager must be as new: it was told the time or a quota, or "
                      "has kept pages on terms or pins");
  }
  return manager;
}

}  // namespace

OpRecorder::OpRecorder(CacheManager& manager, const std::string& path, bool flush_each_record)
    : manager_(&check_new(manager)), file_(path, flush_each_record) {
  write(TraceRecord::kManager, [&] { put_config(record_, config_of(manager)); });
  manager.set_observer(this);
}

OpRecorder::~OpRecorder() {
  try {
    stop();
  } catch (const std::exception&) {  // who wants to know calls `stop`
  }
}

void OpRecorder::stop() {
  if (manager_ == nullptr) return;
  std::exchange(manager_, nullptr)->set_observer(nullptr);
  if (has_failed_) throw std::bad_alloc();
  write(TraceRecord::kEnd, [&] { record_.put_int(num_calls_); });
  file_.close();
}

template <typename Work>
void OpRecorder::write(TraceRecord kind, Work put) {
  record_.clear();
  record_.put_uint(static_cast<std::uint64_t>(kind));
  put();
  file_.write(record_.bytes());
}

// What is known of a request, after it is written as it is now.
OpRecorder::Known& OpRecorder::known(Request& request) {
  if (known_.size() >= next_cleaning_) forget_the_dead();
  const auto history = request.history();
  const auto [entry, is_new] = known_.try_emplace(&request);
  Known& known = entry->second;
  if (!is_new && known.history.lock() == history) {
    write_changes(request, known);
    return known;
  }
  if (is_new && free_numbers_.empty()) free_numbers_.push_back(num_numbers_++);
  if (is_new) {
    known.number = free_numbers_.back();
    free_numbers_.pop_back();
  }
  // Another request of a known address has the number of the old one, which is gone.
  known = {history, known.number, 0, history->cuts.size(), {}};
  write_request(request, known);
  return known;
}

void OpRecorder::forget_the_dead() {
  for (auto entry = known_.begin(); entry != known_.end();) {
    if (!entry->second.history.expired()) {
      ++entry;
      continue;
    }
    free_numbers_.push_back(entry->second.number);
    entry = known_.erase(entry);
  }
  std::ranges::sort(free_numbers_, std::greater());  // not in the order of addresses
  next_cleaning_ = std::max<std::size_t>(1024, 2 * known_.size());
}

void OpRecorder::write_request(Request& request, Known& known) {
  write(TraceRecord::kRequest, [&] {
    record_.put_uint(known.number);
    put_request(record_, request);
  });
  known.num_written = request.tokens().size();
}

void OpRecorder::write_changes(Request& request, Known& known) {
  const auto& cuts = known.history.lock()->cuts;
  std::size_t num_kept = known.num_written;
  for (; known.num_cuts_seen < cuts.size(); ++known.num_cuts_seen) {
    num_kept = std::min(num_kept, static_cast<std::size_t>(cuts[known.num_cuts_seen]));
  }
  if (num_kept == known.num_written && num_kept == request.tokens().size()) return;
  write(TraceRecord::kTokens, [&] {
    record_.put_uint(known.number);
    record_.put_uint(num_kept);
    record_.put_ints(request.tokens().subspan(num_kept));
  });
  known.num_written = request.tokens().size();
}

// Memory may be too short for notes; the call that they are about goes on.
template <typename Work>
void OpRecorder::guarded(Work work) noexcept {
  if (has_failed_) return;
  try {
    work();
  } catch (const std::exception&) {
    has_failed_ = true;
  }
}

void OpRecorder::before(const ManagerCall& call) noexcept {
  guarded([&] {
    std::uint64_t held_elsewhere = 0;  // a bit a request
    std::uint64_t bit = 1;
    for (Request* request : requests_of(call)) {
      known(*request);
      if (request->is_allocated() && !manager_->holds(*request)) held_elsewhere |= bit;
      bit <<= 1;
    }
    write(TraceRecord::kCall, [&] {
      record_.put_uint(held_elsewhere);
      put_call(record_, call, [&](Request* request) { return known_.at(request).number; });
    });
    ++num_calls_;
  });
}

void OpRecorder::after(const ManagerCall& call, std::int64_t value) noexcept {
  guarded([&] { write_answer(call, value, nullptr); });
}

void OpRecorder::failed(const ManagerCall& call, const char* message) noexcept {
  guarded([&] { write_answer(call, 0, message); });
}

void OpRecorder::write_answer(const ManagerCall& call, std::int64_t value, const char* error) {
  const Request* request = request_of(call);
  SeenRows* rows = request == nullptr ? nullptr : &known_.at(request).rows;
  const CallAnswer answer = answer_of(*manager_, call, rows, value, error);
  write(TraceRecord::kAnswer, [&] { put_answer(record_, answer); });
}

}  // namespace pagedkv
