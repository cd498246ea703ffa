#include "pagedkv/hash/hash_algorithm.h"

#include <algorithm>
#include <array>
#include <string>

#include "hash_functions.h"
#include "pagedkv/error.h"

namespace pagedkv {
namespace {

// In the order of the enumeration.
constexpr std::array kFunctions = {
    &kSha256CborFunctions, &kSha256Functions,  &kXxh3CborFunctions,
    &kXxh3Functions,       &kPagedkvFunctions, &kPagedkvXxh3Functions,
};

constexpr std::array kAlgorithms = {
    HashAlgorithm::kSha256Cbor, HashAlgorithm::kSha256,  HashAlgorithm::kXxh3Cbor,
    HashAlgorithm::kXxh3,       HashAlgorithm::kPagedkv, HashAlgorithm::kPagedkvXxh3,
};
static_assert(kAlgorithms.size() == kFunctions.size());

std::string known_names() {
  std::string names;
  for (const HashFunctions* each : kFunctions) {
    names += names.empty() ? "" : ", ";
    names += each->name;
  }
  return names;
}

}  // namespace

const HashFunctions& functions_of(HashAlgorithm algorithm) {
  const auto index = static_cast<std::size_t>(algorithm);
  if (index >= kFunctions.size()) {
    throw_value_error("HashAlgorithm", "unknown algorithm ", static_cast<int>(algorithm));
  }
  return *kFunctions[index];
}

std::span<const HashAlgorithm> all_hash_algorithms() { return kAlgorithms; }

std::string_view name(HashAlgorithm algorithm) { return functions_of(algorithm).name; }

HashAlgorithm hash_algorithm_named(std::string_view name) {
  const auto found = std::ranges::find_if(kFunctions, [&](const HashFunctions* each) {
    return each->name == name || each->name_in_vllm == name;
  });
  if (found == kFunctions.end()) {
    throw_value_error("HashAlgorithm", "hash_algorithm must be one of ", known_names(), "; got '",
                      name, "'");
  }
  return (*found)->algorithm;
}

std::size_t digest_bytes(HashAlgorithm algorithm) { return functions_of(algorithm).digest_bytes; }

bool takes_extra_keys(HashAlgorithm algorithm) { return functions_of(algorithm).takes_extra_keys; }

}  // namespace pagedkv
