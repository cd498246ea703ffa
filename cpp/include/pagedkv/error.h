#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

/// Three blames, three ways. The caller is wrong: `throw_value_error`, `throw_index_error`, with
/// the operation, the value seen and the rule. It may well happen (no page free): an optional or
/// a count, never an exception. We are wrong: `throw_broken`, out of `check_invariants()` only.
namespace pagedkv {

/// "[operation] part part …", the form of every message of the library.
template <typename... Parts>
std::string error_message(std::string_view operation, const Parts&... parts) {
  std::ostringstream text;
  text << '[' << operation << "] ";
  (text << ... << parts);
  return std::move(text).str();
}

/// Throws `std::invalid_argument`, which Python sees as ValueError.
template <typename... Parts>
[[noreturn]] void throw_value_error(std::string_view operation, const Parts&... parts) {
  throw std::invalid_argument(error_message(operation, parts...));
}

/// Throws `std::out_of_range`, which Python sees as IndexError.
template <typename... Parts>
[[noreturn]] void throw_index_error(std::string_view operation, const Parts&... parts) {
  throw std::out_of_range(error_message(operation, parts...));
}

/// Throws `std::logic_error`: an invariant of ours does not hold. Python sees RuntimeError.
template <typename... Parts>
[[noreturn]] void throw_broken(std::string_view structure, const Parts&... parts) {
  throw std::logic_error(error_message(structure, parts...));
}

}  // namespace pagedkv
