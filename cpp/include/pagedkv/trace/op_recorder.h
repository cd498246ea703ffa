#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "pagedkv/bytes.h"
#include "pagedkv/manager/manager_observer.h"
#include "pagedkv/trace/call_answer.h"
#include "pagedkv/trace/trace_file.h"

namespace pagedkv {

/// Kinds of the records of an op trace: the first byte of each.
enum class TraceRecord : std::uint8_t {
  kManager = 1,  ///< How the manager was made. The first.
  kRequest = 2,  ///< Number of a request, and what it is made of. Replaces the one of that number.
  kTokens = 3,   ///< Number of a request, how many of its tokens stay, and those after them.
  kCall = 4,     ///< Which requests hold pages of another manager, a bit each, and the call.
  kAnswer = 5,   ///< What came of the call before.
  kEnd = 6,      ///< The number of calls. The last, of a recording that was stopped.
};

/// Writes every call on a manager to a file, with its answer: `replay_ops` makes them again.
///
/// Requests grow and shrink outside the manager: what has changed of one is written when a call is
/// about it. A recording that ends with the process lacks the records that were not handed to the
/// system yet; with `flush_each_record`, none.
class OpRecorder final : private ManagerObserver {
 public:
  /// Both must outlive each other's use: `stop` before the manager goes.
  ///
  /// Throws `std::invalid_argument` unless the manager is as new (nothing held or cached, and pages
  /// in their first order) and nobody observes it; `std::system_error` if the file cannot be
  /// written.
  OpRecorder(CacheManager& manager, const std::string& path, bool flush_each_record = false);

  /// Stops.
  ~OpRecorder() override;

  OpRecorder(const OpRecorder&) = delete;
  OpRecorder& operator=(const OpRecorder&) = delete;

  std::int64_t num_calls() const { return num_calls_; }

  /// Ends the recording. Throws `std::system_error` if anything could not be written,
  /// `std::bad_alloc` if memory was too short to.
  void stop();

 private:
  struct Known {
    std::weak_ptr<const RequestHistory> history;
    std::uint64_t number = 0;
    std::size_t num_written = 0;
    std::size_t num_cuts_seen = 0;
    SeenRows rows;
  };

  void before(const ManagerCall& call) noexcept override;
  void after(const ManagerCall& call, std::int64_t value) noexcept override;
  void failed(const ManagerCall& call, const char* message) noexcept override;

  template <typename Work>
  void write(TraceRecord kind, Work put);
  Known& known(Request& request);
  void forget_the_dead();
  void write_request(Request& request, Known& known);
  void write_changes(Request& request, Known& known);
  void write_answer(const ManagerCall& call, std::int64_t value, const char* error);
  template <typename Work>
  void guarded(Work work) noexcept;

  CacheManager* manager_;
  TraceWriter file_;
  ByteWriter record_;
  std::unordered_map<const Request*, Known> known_;
  std::vector<std::uint64_t> free_numbers_;
  std::uint64_t num_numbers_ = 0;
  std::size_t next_cleaning_ = 1024;  // at that many known requests
  std::int64_t num_calls_ = 0;
  bool has_failed_ = false;  // memory was too short
};

}  // namespace pagedkv
