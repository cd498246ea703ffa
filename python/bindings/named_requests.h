#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "bindings.h"
#include "pagedkv/manager/request.h"

namespace pagedkv {

/// A scheduler's own request object, as the manager sees it.
struct NamedRequest {
  /// Its tokens as far as they fill pages, and what it holds.
  std::unique_ptr<Request> request;
  /// The object the tokens were read from. Held, so that no other object can have its address.
  nb::object object;
  /// Nobody is going to ask for it again once it has given its pages back.
  bool is_finished = false;
};

/// The requests that a manager knows by their id, of schedulers that keep request objects of their
/// own: anything with `request_id`, `num_tokens` and `all_token_ids` will do.
///
/// Reads of an object only what is new since the last time. Not thread-safe, and reading may run
/// Python code: keep others out.
class NamedRequests {
 public:
  /// The request of this id, or null.
  NamedRequest* find(std::string_view request_id);
  const NamedRequest* find(std::string_view request_id) const;

  /// The request of this id with the tokens that fill pages of `page_size` tokens. Makes it if it
  /// is new, or if it holds no pages and the object has other tokens than those known.
  ///
  /// Throws `std::invalid_argument` if it holds pages and the object has fewer tokens than before,
  /// TypeError for a `Request`, and what reading the object throws; then nothing has changed.
  NamedRequest& update(nb::handle object, const std::string& request_id, std::int32_t page_size,
                       const char* operation);

  /// The request of this id, made without tokens if it is new: for managers that do not cache.
  NamedRequest& of(nb::handle object, const std::string& request_id, const char* operation);

  /// Forgets the request, which gives the pages it holds back.
  void erase(std::string_view request_id);

  void clear();

  /// For Python's cycle collector.
  int traverse(visitproc visit, void* arg) const;

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };

  std::unordered_map<std::string, NamedRequest, Hash, std::equal_to<>> requests_;
};

/// Throws TypeError for a `Request` of ours, which the calls with schedulers' own do not take.
void refuse_ours(nb::handle object, const char* operation);

/// `object.name` as an integer.
///
/// Throws AttributeError or TypeError as Python does, `std::invalid_argument` for values that are
/// negative or no int32.
std::int32_t int32_attribute(nb::handle object, PyObject* name, const char* operation);

/// `object.name`; without such an attribute, `fallback`. Throws what else reading it throws.
nb::object optional_attribute(nb::handle object, PyObject* name, nb::object fallback = nb::none());

/// The characters of a Python text, zeros among them. Throws UnicodeEncodeError for those that are
/// none.
std::string text_of(nb::handle text);

/// Names of the attributes that are read.
struct AttributeNames {
  PyObject* request_id = PyUnicode_InternFromString("request_id");
  PyObject* num_tokens = PyUnicode_InternFromString("num_tokens");
  PyObject* num_computed_tokens = PyUnicode_InternFromString("num_computed_tokens");
  PyObject* all_token_ids = PyUnicode_InternFromString("all_token_ids");
  PyObject* sampling_params = PyUnicode_InternFromString("sampling_params");
  PyObject* prompt_logprobs = PyUnicode_InternFromString("prompt_logprobs");
  PyObject* status = PyUnicode_InternFromString("status");
  PyObject* name = PyUnicode_InternFromString("name");
  PyObject* lora_request = PyUnicode_InternFromString("lora_request");
  PyObject* lora_name = PyUnicode_InternFromString("lora_name");
  PyObject* lora_path = PyUnicode_InternFromString("lora_path");
  PyObject* cache_salt = PyUnicode_InternFromString("cache_salt");
  PyObject* has_vision = PyUnicode_InternFromString("has_vision");
  PyObject* mm_features = PyUnicode_InternFromString("mm_features");
  PyObject* modality = PyUnicode_InternFromString("modality");
  PyObject* mm_hash = PyUnicode_InternFromString("mm_hash");

  static const AttributeNames& get();
};

}  // namespace pagedkv
