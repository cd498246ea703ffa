#pragma once

#include <atomic>
#include <stdexcept>
#include <string_view>

#include "pagedkv/error.h"

namespace pagedkv {

/// Says that one thread is using an object that only one at a time may use.
///
/// For objects that are not thread-safe, where a second thread may come in by mistake: it shall
/// get an error, not corrupt memory. Exact where a lock is held when uses begin and end (as
/// Python's is), and the use goes on without it. Costs a load and two stores.
class UseFlag {
 public:
  bool in_use() const { return in_use_.load(std::memory_order_acquire); }

 private:
  friend class ExclusiveUse;
  std::atomic<bool> in_use_ = false;
};

/// Sets a flag while it lives.
class ExclusiveUse {
 public:
  /// Throws `std::runtime_error` "[operation] the object is in use by another thread".
  ExclusiveUse(UseFlag& flag, std::string_view operation, std::string_view object) : flag_(flag) {
    if (flag.in_use()) {
      throw std::runtime_error(
          error_message(operation, "the ", object, " is in use by another thread"));
    }
    flag.in_use_.store(true, std::memory_order_release);
  }
  ~ExclusiveUse() { flag_.in_use_.store(false, std::memory_order_release); }

  ExclusiveUse(const ExclusiveUse&) = delete;
  ExclusiveUse& operator=(const ExclusiveUse&) = delete;

 private:
  UseFlag& flag_;
};

}  // namespace pagedkv
