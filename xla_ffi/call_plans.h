#pragma once

#include <array>
#include <cstddef>
#include <utility>

#include "call_signature.h"

namespace pagedkv {

/// What the last calls of a handler came to, by their signatures: a step with layers of two kinds
/// makes two calls in turn. A thread has one of its own.
template <typename Plan>
class CallPlans {
 public:
  /// The plan of a call of this signature, or null. It stays until the next `add`.
  const Plan* find(const XLA_FFI_CallFrame& call) {
    for (size_t tries = 0; tries < kCapacity; ++tries, last_ = (last_ + 1) % kCapacity) {
      if (entries_[last_].signature.matches(call)) return &entries_[last_].plan;
    }
    return nullptr;
  }

  /// Keeps a plan in place of the oldest.
  const Plan* add(const XLA_FFI_CallFrame& call, Plan plan) {
    last_ = next_;
    next_ = (next_ + 1) % kCapacity;
    entries_[last_].signature.assign(call);
    entries_[last_].plan = std::move(plan);
    return &entries_[last_].plan;
  }

 private:
  static constexpr size_t kCapacity = 8;
  struct Entry {
    CallSignature signature;
    Plan plan{};
  };
  std::array<Entry, kCapacity> entries_;
  size_t last_ = 0;  // where the last call was found
  size_t next_ = 0;  // where the next plan goes
};

}  // namespace pagedkv
