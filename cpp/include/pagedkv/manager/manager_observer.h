#pragma once

#include <cstdint>
#include <exception>
#include <type_traits>
#include <utility>

#include "pagedkv/manager/manager_calls.h"

namespace pagedkv {

/// Is told of each call on a manager: before it is made, and of what came of it. Calls that a call
/// is made of are not told of.
///
/// Nothing may be thrown: what the observer does is no business of the manager's callers.
class ManagerObserver {
 public:
  virtual ~ManagerObserver() = default;

  virtual void before(const ManagerCall& call) noexcept = 0;

  /// `value` is what the call returned, 0 if nothing.
  virtual void after(const ManagerCall& call, std::int64_t value) noexcept = 0;

  /// The call threw an exception with this message.
  virtual void failed(const ManagerCall& call, const char* message) noexcept = 0;
};

/// Returns `work()`, which makes the call, and tells the observer in `place` of it. The place is
/// empty meanwhile.
template <typename Work>
auto observed(ManagerObserver*& place, const ManagerCall& call, Work work) {
  struct Silence {
    explicit Silence(ManagerObserver*& p) : place(p), observer(*std::exchange(p, nullptr)) {}
    ~Silence() { place = &observer; }
    ManagerObserver*& place;
    ManagerObserver& observer;
  };
  const Silence silence(place);
  silence.observer.before(call);
  try {
    if constexpr (std::is_void_v<decltype(work())>) {
      work();
      silence.observer.after(call, 0);
    } else {
      const auto value = work();
      silence.observer.after(call, value);
      return value;
    }
  } catch (const std::exception& error) {
    silence.observer.failed(call, error.what());
    throw;
  }
}

}  // namespace pagedkv
