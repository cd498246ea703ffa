#include "named_requests.h"

#include <algorithm>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "arrays.h"
#include "pagedkv/error.h"
#include "pagedkv/math.h"

namespace pagedkv {
namespace {

nb::object attribute(nb::handle object, PyObject* name) {
  PyObject* value = PyObject_GetAttr(object.ptr(), name);
  if (value == nullptr) nb::raise_python_error();
  return nb::steal(value);
}

bool is_true(nb::handle object) {
  const int answer = PyObject_IsTrue(object.ptr());
  if (answer < 0) nb::raise_python_error();
  return answer == 1;
}

std::vector<TokenId> tokens_of(nb::handle object, std::int32_t begin, std::int32_t end,
                               const char* operation) {
  const nb::object all = attribute(object, AttributeNames::get().all_token_ids);
  const nb::object slice =
      nb::steal(PySlice_New(nb::int_(begin).ptr(), nb::int_(end).ptr(), nullptr));
  if (!slice.is_valid()) nb::raise_python_error();
  const nb::object part = nb::steal(PyObject_GetItem(all.ptr(), slice.ptr()));
  if (!part.is_valid()) nb::raise_python_error();
  std::vector<TokenId> tokens = int32_values(part, operation, "all_token_ids");
  if (std::ssize(tokens) != end - begin) {
    throw_value_error(operation, "all_token_ids[", begin, ":", end, "] has ", tokens.size(),
                      " tokens, num_tokens says ", end - begin);
  }
  return tokens;
}

// `str(object.name)`; without such an attribute, `fallback`.
std::string text_attribute(nb::handle object, PyObject* name, const char* fallback) {
  const nb::object value = optional_attribute(object, name, nb::str(fallback));
  return text_of(nb::str(value));
}

std::optional<LoraKey> lora_of(nb::handle object) {
  const AttributeNames& names = AttributeNames::get();
  const nb::object lora = optional_attribute(object, names.lora_request);
  if (lora.is_none()) return std::nullopt;
  return LoraKey{text_attribute(lora, names.lora_name, ""),
                 text_attribute(lora, names.lora_path, "")};
}

// What besides the tokens decides the content of the first `num_tokens` of them. Images are named
// by hash, but not where they are, so all of a prompt's pages are about all of them. A prompt that
// fills no page has them in its salt: they still keep apart the pages that its output fills.
ExtraKeys extra_keys_of(nb::handle object, std::int32_t num_tokens) {
  const AttributeNames& names = AttributeNames::get();
  const nb::object cache_salt = optional_attribute(object, names.cache_salt);
  std::optional<std::string> salt;
  if (!cache_salt.is_none()) salt = text_of(nb::str(cache_salt));
  std::vector<MultimodalItem> items;
  const nb::object features = optional_attribute(object, names.mm_features);
  if (is_true(optional_attribute(object, names.has_vision)) && !features.is_none()) {
    for (nb::handle feature : features) {
      const std::string name = text_attribute(feature, names.modality, "mm") + ":" +
                               text_attribute(feature, names.mm_hash, "");
      if (num_tokens > 0) {
        items.push_back({name, 0, num_tokens});
      } else {
        salt = salt.value_or("") + '\0' + name;
      }
    }
  }
  return ExtraKeys(lora_of(object), std::move(items), std::move(salt));
}

// Whether requests with these keys and equal tokens have equal content, however many of the tokens
// the keys were made for.
bool name_the_same(const ExtraKeys& left, const ExtraKeys& right) {
  return left.lora() == right.lora() && left.cache_salt() == right.cache_salt() &&
         std::ranges::equal(left.mm_items(), right.mm_items(), {}, &MultimodalItem::identifier,
                            &MultimodalItem::identifier);
}

}  // namespace

const AttributeNames& AttributeNames::get() {
  static const AttributeNames names;
  return names;
}

nb::object optional_attribute(nb::handle object, PyObject* name, nb::object fallback) {
  PyObject* value = PyObject_GetAttr(object.ptr(), name);
  if (value != nullptr) return nb::steal(value);
  if (PyErr_ExceptionMatches(PyExc_AttributeError) == 0) nb::raise_python_error();
  PyErr_Clear();
  return fallback;
}

std::string text_of(nb::handle text) {
  Py_ssize_t size = 0;
  const char* data = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (data == nullptr) nb::raise_python_error();
  return {data, static_cast<std::size_t>(size)};
}

void refuse_ours(nb::handle object, const char* operation) {
  if (!nb::isinstance<Request>(object)) return;
  throw nb::type_error(
      error_message(operation,
                    "takes a scheduler's own request objects, which have all_token_ids; for a "
                    "pagedkv.Request use match, allocate, commit")
          .c_str());
}

std::int32_t int32_attribute(nb::handle object, PyObject* name, const char* operation) {
  nb::object value = attribute(object, name);
  if (!PyLong_CheckExact(value.ptr())) {
    if (!PyIndex_Check(value.ptr())) {
      throw nb::type_error(error_message(operation, text_of(name), " must be an integer, got ",
                                         nb::inst_name(value).c_str())
                               .c_str());
    }
    value = nb::steal(PyNumber_Index(value.ptr()));
    if (!value.is_valid()) nb::raise_python_error();
  }
  int overflow = 0;
  const long number = PyLong_AsLongAndOverflow(value.ptr(), &overflow);
  if (overflow != 0 || number < 0 || !std::in_range<std::int32_t>(number)) {
    throw_value_error(operation, text_of(name), " must be >= 0 and fit in int32, got ",
                      nb::str(value).c_str());
  }
  return static_cast<std::int32_t>(number);
}

NamedRequest* NamedRequests::find(std::string_view request_id) {
  const auto found = requests_.find(request_id);
  return found == requests_.end() ? nullptr : &found->second;
}

const NamedRequest* NamedRequests::find(std::string_view request_id) const {
  const auto found = requests_.find(request_id);
  return found == requests_.end() ? nullptr : &found->second;
}

NamedRequest& NamedRequests::update(nb::handle object, const std::string& request_id,
                                    std::int32_t page_size, const char* operation) {
  refuse_ours(object, operation);
  const std::int32_t num_tokens =
      round_down(int32_attribute(object, AttributeNames::get().num_tokens, operation), page_size);
  NamedRequest* known = find(request_id);
  const bool holds_pages = known != nullptr && known->request->is_allocated();
  const std::int32_t num_known = known == nullptr ? 0 : known->request->num_tokens();
  if (holds_pages && num_tokens < num_known) {
    throw_value_error(operation, "request '", request_id, "' had ", num_known, " tokens, now has ",
                      num_tokens, ": tokens may only be appended");
  }
  const bool is_same = known != nullptr && known->object.is(object);
  const bool is_continued = num_known > 0 && num_tokens >= num_known && (is_same || holds_pages);
  if (is_continued || holds_pages) {
    if (num_tokens > num_known) {
      known->request->append(tokens_of(object, num_known, num_tokens, operation));
    }
    if (!is_same) known->object = nb::borrow(object);
    return *known;
  }
  // A request that is new, or has nothing hashed yet, or may be another one of the same name.
  std::vector<TokenId> tokens;
  if (num_tokens > 0) tokens = tokens_of(object, 0, num_tokens, operation);
  ExtraKeys keys = extra_keys_of(object, num_tokens);
  if (num_known > 0 && num_tokens >= num_known &&
      name_the_same(keys, known->request->extra_keys()) &&
      std::ranges::equal(known->request->tokens(),
                         std::span(tokens).first(static_cast<std::size_t>(num_known)))) {
    known->request->append(std::span(tokens).subspan(static_cast<std::size_t>(num_known)));
    known->object = nb::borrow(object);
    return *known;
  }
  NamedRequest fresh;
  fresh.request = std::make_unique<Request>(request_id, std::move(tokens), std::move(keys));
  fresh.object = nb::borrow(object);
  NamedRequest& entry = requests_[request_id];
  std::swap(entry, fresh);  // the old one goes last: letting go of an object may run Python code
  return entry;
}

NamedRequest& NamedRequests::of(nb::handle object, const std::string& request_id,
                                const char* operation) {
  if (NamedRequest* known = find(request_id)) return *known;
  refuse_ours(object, operation);
  NamedRequest& entry = requests_[request_id];
  entry.request = std::make_unique<Request>(request_id, std::vector<TokenId>());
  entry.object = nb::borrow(object);
  return entry;
}

void NamedRequests::erase(std::string_view request_id) {
  const auto found = requests_.find(request_id);
  if (found != requests_.end()) requests_.extract(found);
}

void NamedRequests::clear() { std::exchange(requests_, {}); }

int NamedRequests::traverse(visitproc visit, void* arg) const {
  for (const auto& [request_id, known] : requests_) Py_VISIT(known.object.ptr());
  return 0;
}

}  // namespace pagedkv
