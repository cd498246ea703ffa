#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "bindings.h"
#include "gil.h"
#include "named_requests.h"
#include "pagedkv/error.h"
#include "pagedkv/manager/cache_manager.h"
#include "pagedkv/trace/op_recorder.h"
#include "pool.h"
#include "request_handles.h"

namespace pagedkv {

/// The core's manager, and a Python reference to each request that holds pages of it: the core
/// keeps plain pointers to them.
///
/// Hashing and matching long prompts go on without Python's lock. Meanwhile nothing changes but the
/// digests of that one request and scratch memory, so counters and tables may be read; all that
/// would change the manager or the request is refused.
class OwningManager {
 public:
  OwningManager(PageId num_pages, std::span<const CacheGroupSpec> kv_cache_groups,
                std::int32_t max_model_len, const CacheManagerOptions& options)
      : core_(std::make_shared<CacheManager>(num_pages, kv_cache_groups, max_model_len, options)) {}

  ~OwningManager() { clear(); }

  const CacheManager& core() const { return *core_; }

  PagePoolView pool() const { return {{core_, &core_->pool()}}; }

  std::int32_t match(Request& request, ShardId shard) {
    const Use use(*this, request, "CacheManager.match");
    return without_gil_if_long(request.num_tokens() / core_->hash_page_size(),
                               [&] { return core_->match(request, shard); });
  }

  bool allocate(Request& request, const Demand& demand) {
    const Use use(*this, request, "CacheManager.allocate");
    if (demand.num_cached_tokens > 0) hash(request);
    const bool is_new = !request.is_allocated();
    const bool done = core_->allocate(request, demand);
    if (done && is_new) held_.emplace(&request, nb::find(request));
    return done;
  }

  bool commit(Request& request, std::int32_t num_computed_tokens) {
    const Use use(*this, request, "CacheManager.commit");
    hash(request);
    return core_->commit(request, num_computed_tokens);
  }

  bool fork(Request& parent, Request& child, std::vector<PageCopies>& copies) {
    constexpr auto kOperation = "CacheManager.fork";
    const Use use(*this, parent, kOperation);
    std::optional<ExclusiveUse> use_of_child;
    if (&child != &parent) use_of_child.emplace(child.use_flag(), kOperation, "request");
    const bool done = core_->fork(parent, child, copies);
    if (done) held_.emplace(&child, nb::find(child));
    return done;
  }

  bool reset_prefix_cache() {
    const ExclusiveUse use(use_flag_, "CacheManager.reset_prefix_cache", "manager");
    return core_->reset_prefix_cache();
  }

  void free(Request& request) {
    const Use use(*this, request, "CacheManager.free");
    core_->free(request);
    held_.erase(&request);
  }

  /// The core, while nobody else uses it.
  template <typename Work>
  auto with_core(std::string_view operation, Work work) {
    const ExclusiveUse use(use_flag_, operation, "manager");
    return work(*core_);
  }

  /// The core and the requests that schedulers know by name, while nobody else uses them.
  template <typename Work>
  auto with_named(std::string_view operation, Work work) {
    const ExclusiveUse use(use_flag_, operation, "manager");
    return work(*core_, named_);
  }

  const NamedRequests& named() const { return named_; }

  /// The core and the requests that have handles, while nobody else uses them.
  template <typename Work>
  auto with_handles(std::string_view operation, Work work) {
    const ExclusiveUse use(use_flag_, operation, "manager");
    return work(*core_, handles_);
  }

  bool is_recording() const { return recorder_ != nullptr; }

  void start_recording(const std::string& path, bool flush_each_record) {
    constexpr auto kOperation = "CacheManager.start_recording";
    const ExclusiveUse use(use_flag_, kOperation, "manager");
    if (is_recording()) throw_value_error(kOperation, "the manager is recorded already");
    recorder_ = std::make_unique<OpRecorder>(*core_, path, flush_each_record);
    recording_path_ = path;
  }

  const std::string& recording_path() const { return recording_path_; }

  /// Returns the number of calls. What goes wrong with the file is thrown, and ends it as well.
  std::int64_t stop_recording() {
    constexpr auto kOperation = "CacheManager.stop_recording";
    const ExclusiveUse use(use_flag_, kOperation, "manager");
    if (!is_recording()) throw_value_error(kOperation, "the manager is not recorded");
    const auto recorder = std::exchange(recorder_, nullptr);
    recorder->stop();
    return recorder->num_calls();
  }

  /// Lets go of a request that has given its pages back.
  void let_go(Request& request) { held_.erase(&request); }

  // For Python's cycle collector: a subclass of Request may refer back to the manager.
  int traverse(visitproc visit, void* arg) {
    for (const auto& [request, object] : held_) Py_VISIT(object.ptr());
    if (const int stop = named_.traverse(visit, arg)) return stop;
    return handles_.traverse(visit, arg);
  }

  void clear() {
    for (const auto& [request, object] : held_) core_->free(*request);
    std::exchange(held_, {});
    named_.clear();
    handles_.clear();
  }

 private:
  struct Use {
    Use(OwningManager& self, Request& used, std::string_view operation)
        : manager(self.use_flag_, operation, "manager"),
          request(used.use_flag(), operation, "request") {}
    ExclusiveUse manager;
    ExclusiveUse request;
  };

  // What the core would hash under Python's lock, if it is long.
  void hash(Request& request) {
    if (!core_->enable_caching()) return;
    const std::int64_t num_pages =
        request.num_pages_to_hash(core_->hash_page_size(), core_->hasher());
    if (num_pages < kMinPagesWithoutGil) return;
    without_gil_if_long(num_pages,
                        [&] { request.page_hashes(core_->hash_page_size(), core_->hasher()); });
  }

  UseFlag use_flag_;
  std::shared_ptr<CacheManager> core_;
  std::unordered_map<Request*, nb::object> held_;
  NamedRequests named_;
  RequestHandles handles_;
  std::string recording_path_;
  std::unique_ptr<OpRecorder> recorder_;  // goes before the core
};

/// What a manager holds, counted, named and saved: see manager_contents.cc.
void bind_manager_contents(nb::module_& m, nb::class_<OwningManager>& manager);
void bind_page_map(nb::module_& m, nb::class_<OwningManager>& manager);

/// What happens to cached content, page by page: see events.cc.
void bind_event_calls(nb::class_<OwningManager>& manager);

/// How long pages keep their content: see residency.cc.
void bind_residency_calls(nb::module_& m, nb::class_<OwningManager>& manager);

/// Recording of its calls: see op_traces.cc.
void bind_recording(nb::class_<OwningManager>& manager);

/// Methods that take requests of schedulers' own classes: see scheduler_calls.cc.
void bind_scheduler_calls(nb::class_<OwningManager>& manager);

/// Methods for what is kept when requests have gone: see retention.cc.
void bind_retention_calls(nb::class_<OwningManager>& manager);

/// Methods for requests that go on from others: see fork_calls.cc.
void bind_fork_calls(nb::module_& m, nb::class_<OwningManager>& manager);

/// Methods for all requests of a step at once: see step_calls.cc.
void bind_step_calls(nb::module_& m, nb::class_<OwningManager>& manager);

/// Methods for the arrays of a step: see step_tables.cc.
void bind_step_tables(nb::class_<OwningManager>& manager);

}  // namespace pagedkv
