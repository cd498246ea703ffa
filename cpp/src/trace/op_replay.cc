#include "pagedkv/trace/op_replay.h"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

#include "pagedkv/error.h"
#include "pagedkv/manager/config_bytes.h"
#include "pagedkv/trace/call_answer.h"
#include "pagedkv/trace/call_bytes.h"
#include "pagedkv/trace/op_recorder.h"
#include "pagedkv/trace/request_bytes.h"
#include "pagedkv/trace/trace_file.h"

namespace pagedkv {
namespace {

constexpr auto kOperation = "replay_ops";

// Does work on what a record says; what that throws is the record's fault.
template <typename Work>
auto checked(const ByteReader& reader, Work work) {
  try {
    return work();
  } catch (const std::logic_error& error) {
    const std::string_view message = error.what();
    if (message.starts_with("[replay_ops]")) throw;
    reader.fail(message);
  }
}

// Holds a page for each of a call's requests, as a manager does that is not in the trace.
class OtherManager {
 public:
  void hold(Request& request) {
    if (request.is_allocated()) return;
    if (manager_.allocate(request, {.num_new_tokens = 1, .may_be_ahead = true})) {
      held_.push_back(&request);
    }
  }

  void release() {
    for (Request* request : held_) manager_.free(*request);
    held_.clear();
  }

 private:
  static CacheGroupSpec group() { return {FullAttentionSpec(1, 1, 1, DType("int8")), {}}; }

  std::vector<CacheGroupSpec> groups_ = {group()};
  CacheManager manager_{8, groups_, 1, {.enable_caching = false}};
  std::vector<Request*> held_;
};

class Replay final : private ManagerObserver {
 public:
  explicit Replay(const ReplayOptions& options) : options_(options) {}

  void read(TraceRecord kind, ByteReader& reader);
  ReplayReport finish(const TraceReader& trace);

  bool is_done() const { return report_.difference.has_value(); }

 private:
  struct Known {
    std::unique_ptr<Request> request;
    SeenRows rows;
  };

  void before(const ManagerCall&) noexcept override {}
  void after(const ManagerCall& call, std::int64_t value) noexcept override {
    answer_ = answer_of(*manager_, call, seen_, value);
  }
  void failed(const ManagerCall& call, const char* message) noexcept override {
    answer_ = answer_of(*manager_, call, seen_, 0, message);
  }

  Known& known(const ByteReader& reader, std::uint64_t number);
  void make_manager(ByteReader& reader);
  void add_request(ByteReader& reader);
  void change_tokens(ByteReader& reader);
  void make_call(ByteReader& reader);
  void compare(ByteReader& reader);
  void end(ByteReader& reader);

  ReplayOptions options_;
  ReplayReport report_;
  // The manager goes first: it lets go of requests that still hold pages.
  std::vector<Known> requests_;
  OtherManager other_;
  std::unique_ptr<CacheManager> manager_;
  // Of the call that was made last.
  std::string call_;
  SeenRows* seen_ = nullptr;
  CallAnswer answer_;
  std::string broken_invariant_;
  bool is_unanswered_ = false;
};

Replay::Known& Replay::known(const ByteReader& reader, std::uint64_t number) {
  if (number >= requests_.size()) reader.fail("there is no request ", number);
  return requests_[static_cast<std::size_t>(number)];
}

void Replay::make_manager(ByteReader& reader) {
  if (manager_) reader.fail("a second manager");
  checked(reader, [&] {
    const ManagerConfig config = get_config(reader);
    if (config.num_pages > options_.max_pages) {
      reader.fail("the pool has ", config.num_pages, " pages, more than max_pages ",
                  options_.max_pages);
    }
    manager_ = std::make_unique<CacheManager>(config.num_pages, groups_of(config),
                                              config.max_model_len, config.options);
  });
}

void Replay::add_request(ByteReader& reader) {
  const std::uint64_t number = reader.get_uint();
  if (number == requests_.size()) requests_.emplace_back();
  Known& place = known(reader, number);
  if (place.request && place.request->is_allocated()) {
    reader.fail("request ", number, " is replaced while it holds pages");
  }
  place = {checked(reader, [&] { return get_request(reader); }), {}};
}

void Replay::change_tokens(ByteReader& reader) {
  Request& request = *known(reader, reader.get_uint()).request;
  const auto num_kept = reader.get_uint();
  if (num_kept > request.tokens().size()) {
    reader.fail("request '", request.request_id(), "' has ", request.num_tokens(),
                " tokens, cannot keep ", num_kept);
  }
  if (num_kept < request.tokens().size()) {
    checked(reader, [&] { request.truncate(static_cast<std::int32_t>(num_kept)); });
  }
  request.append(reader.get_ints());
}

void Replay::make_call(ByteReader& reader) {
  if (is_unanswered_) reader.fail("a call before the last one is answered");
  std::uint64_t held_elsewhere = reader.get_uint();
  CallStorage storage;
  seen_ = nullptr;
  const auto request_numbered = [&](std::uint64_t number) {
    Known& place = known(reader, number);
    if (seen_ == nullptr) seen_ = &place.rows;  // the first is the one that the call is about
    return place.request.get();
  };
  const ManagerCall call = get_call(reader, request_numbered, storage);
  reader.check_done();
  call_ = text_of(call);
  for (Request* request : requests_of(call)) {
    if ((held_elsewhere & 1) != 0) other_.hold(*request);
    held_elsewhere >>= 1;
  }
  manager_->set_observer(this);
  try {
    make(*manager_, call);
  } catch (const std::exception&) {  // is in the answer
  }
  manager_->set_observer(nullptr);
  other_.release();
  is_unanswered_ = true;
  if (!options_.check_invariants) return;
  try {
    manager_->check_invariants();
  } catch (const std::logic_error& error) {
    broken_invariant_ = error.what();
  }
}

void Replay::compare(ByteReader& reader) {
  if (!std::exchange(is_unanswered_, false)) reader.fail("an answer without a call");
  const CallAnswer recorded = get_answer(reader);
  ++report_.num_ops;
  if (!broken_invariant_.empty()) {
    report_.difference = {report_.num_ops, call_, text_of(recorded), broken_invariant_};
  } else if (recorded != answer_) {
    report_.difference = {report_.num_ops, call_, text_of(recorded), text_of(answer_)};
  }
}

void Replay::end(ByteReader& reader) {
  const std::int64_t num_calls = reader.get_int();
  if (num_calls != report_.num_ops || is_unanswered_) {
    reader.fail("the end says ", num_calls, " calls, there were ", report_.num_ops);
  }
  report_.was_stopped = true;
}

void Replay::read(TraceRecord kind, ByteReader& reader) {
  if (!manager_ && kind != TraceRecord::kManager) reader.fail("a record before the manager's");
  if (report_.was_stopped) reader.fail("a record after the end");
  switch (kind) {
    case TraceRecord::kManager:
      make_manager(reader);
      break;
    case TraceRecord::kRequest:
      add_request(reader);
      break;
    case TraceRecord::kTokens:
      change_tokens(reader);
      break;
    case TraceRecord::kCall:
      make_call(reader);
      break;
    case TraceRecord::kAnswer:
      compare(reader);
      break;
    case TraceRecord::kEnd:
      end(reader);
      break;
    default:
      reader.fail("there is no record of kind ", static_cast<int>(kind));
  }
  reader.check_done();
}

ReplayReport Replay::finish(const TraceReader& trace) {
  if (!manager_) throw_value_error(kOperation, "the trace ends before it has a manager");
  report_.is_cut = trace.is_cut();
  if (is_unanswered_) report_.unanswered_call = call_;
  if (is_unanswered_ && !broken_invariant_.empty()) {
    report_.difference = {report_.num_ops + 1, call_, "nothing", broken_invariant_};
  }
  return std::move(report_);
}

}  // namespace

ReplayReport replay_ops(const std::string& path, const ReplayOptions& options) {
  TraceReader trace(path, kOperation);
  Replay replay(options);
  while (!replay.is_done()) {
    const auto record = trace.next();
    if (!record) break;
    ByteReader reader(kOperation, *record, trace.offset());
    const std::uint64_t kind = reader.get_uint();
    replay.read(static_cast<TraceRecord>(std::min<std::uint64_t>(kind, 255)), reader);
  }
  return replay.finish(trace);
}

}  // namespace pagedkv
