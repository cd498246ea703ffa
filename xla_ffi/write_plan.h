#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "call_plans.h"
#include "checks.h"
#include "ids.h"
#include "kv_layout.h"
#include "quantized_checks.h"
#include "write_checks.h"

/// How the handlers of `write_kv`, for any platform and with or without scales, come from a call
/// frame to memory they may touch.
namespace pagedkv {

/// All that attributes, dtypes and shapes say of a write.
struct WritePlan {
  const KvLayout* layout = nullptr;
  Mode mode = Mode::kDrop;
  CheckedWrite write;
  std::optional<CheckedQuantization> quantization;
  size_t num_batches = 0;
  size_t num_tokens = 0;  // of one element of the batch
};

/// One call of a write: its plan, and its memory, which is all that differs from the call before.
/// The arrays of a quantised pool are its codes and its scales.
class WriteCall {
 public:
  WriteCall(const WritePlan& plan, const XLA_FFI_CallFrame& frame)
      : plan_(&plan), operands_(frame.args.args), results_(frame.rets.rets) {}

  const WritePlan& plan() const { return *plan_; }
  std::span<const int32_t> slots() const {
    return {static_cast<const int32_t*>(operand(0)), plan_->num_batches * plan_->num_tokens};
  }
  std::span<const int32_t> layers() const {
    return {static_cast<const int32_t*>(operand(1)), plan_->num_batches};
  }
  int32_t* num_dropped() const { return static_cast<int32_t*>(result(0)); }

  const void* pool_before(size_t pool) const { return operand(2 + pool); }
  std::byte* pool(size_t pool) const { return static_cast<std::byte*>(result(1 + pool)); }
  int64_t pool_bytes(size_t pool) const {
    return plan_->write.pools[pool].layer_offset(static_cast<int64_t>(plan_->num_batches), 0);
  }
  /// Requires a plan with quantization, as the next two.
  const void* scales_before(size_t pool) const { return operand(2 + num_pools() + pool); }
  float* scales(size_t pool) const { return static_cast<float*>(result(1 + num_pools() + pool)); }
  int64_t scale_bytes(size_t pool) const {
    const ScaleGeometry& geometry = plan_->quantization->scales[pool];
    return geometry.layer_offset(static_cast<int64_t>(plan_->num_batches), 0) *
           static_cast<int64_t>(sizeof(float));
  }
  const std::byte* rows(size_t stream) const {
    const size_t num_arrays = num_pools() * (plan_->quantization ? 2 : 1);
    return static_cast<const std::byte*>(operand(2 + num_arrays + stream));
  }

 private:
  size_t num_pools() const { return plan_->write.pools.size(); }
  static void* data(void* buffer) { return static_cast<XLA_FFI_Buffer*>(buffer)->data; }
  void* operand(size_t i) const { return data(operands_[i]); }
  void* result(size_t i) const { return data(results_[i]); }

  const WritePlan* plan_;
  void* const* operands_;
  void* const* results_;
};

/// Fails if an id is out of range. For mode "raise", where the ids are in the memory of this CPU.
ffi::Error check_write_ids(const WriteCall& call);

/// Decodes and checks a call; leaves `plan` empty if it was a question about the handler. Returns
/// what to return to XLA.
XLA_FFI_Error* plan_write(XLA_FFI_CallFrame* frame, bool is_quantized,
                          std::initializer_list<ffi::Traits> traits,
                          std::optional<WritePlan>& plan);

/// A handler: `run(call, context)` on a call that was checked, now or when one of the same
/// signature came to this thread.
///
/// Operands: slot_mapping, layer, pools, with `kQuantized` their scales, new rows. Results:
/// num_dropped, and the arrays of the pools, aliased. Attributes: layout; layered, a layer axis
/// comes first; mode, drop or raise.
template <bool kQuantized, typename Context, typename Run>
XLA_FFI_Error* run_write(XLA_FFI_CallFrame* frame, std::initializer_list<ffi::Traits> traits,
                         const Run& run) {
  thread_local CallPlans<WritePlan> plans;
  // An extension is a question.
  const WritePlan* plan = frame->extension_start == nullptr ? plans.find(*frame) : nullptr;
  if (plan == nullptr) {
    std::optional<WritePlan> made;
    if (XLA_FFI_Error* error = plan_write(frame, kQuantized, traits, made)) return error;
    if (!made) return nullptr;
    plan = plans.add(*frame, *made);
  }
  ffi::DiagnosticEngine diagnostic;
  auto context = ffi::CtxDecoding<Context>::Decode(frame->api, frame->ctx, diagnostic);
  ffi::Error error = context ? run(WriteCall(*plan, *frame), *context)
                             : ffi::Error(ffi::ErrorCode::kInternal, diagnostic.Result());
  return ffi::ResultEncoding<ffi::ExecutionStage::kExecute, ffi::Error>::Encode(
      frame->api, frame->ctx, std::move(error));
}

}  // namespace pagedkv
