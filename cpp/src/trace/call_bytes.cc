#include "pagedkv/trace/call_bytes.h"

#include <optional>
#include <sstream>
#include <string_view>
#include <type_traits>
#include <variant>

namespace pagedkv {
namespace {

// One `operator()` for each type that an argument may have, in three tasks: to write, to read and
// to show it.

struct FieldWriter {
  ByteWriter& writer;
  const std::function<std::uint64_t(Request*)>& number_of;

  void operator()(const char*, Request* request) { writer.put_uint(number_of(request)); }
  void operator()(const char*, std::int32_t value) { writer.put_int(value); }
  void operator()(const char*, std::int64_t value) { writer.put_int(value); }
  void operator()(const char*, bool value) { writer.put_uint(value); }
  void operator()(const char*, const std::string& value) { writer.put_text(value); }
  void operator()(const char*, std::span<const std::byte> value) { writer.put_bytes(value); }
  void operator()(const char*, const GroupPages* value) {
    writer.put_uint(value != nullptr);
    if (value != nullptr) put_rows(writer, *value);
  }
};

struct FieldReader {
  ByteReader& reader;
  const std::function<Request*(std::uint64_t)>& request_of;
  CallStorage& storage;

  void operator()(const char*, Request*& request) { request = request_of(reader.get_uint()); }
  void operator()(const char*, std::int32_t& value) { value = reader.get_int_as<std::int32_t>(); }
  void operator()(const char*, std::int64_t& value) { value = reader.get_int(); }
  void operator()(const char*, bool& value) { value = reader.get_bool(); }
  void operator()(const char*, std::string& value) { value = reader.get_text(); }
  void operator()(const char*, std::span<const std::byte>& value) { value = reader.get_bytes(); }
  void operator()(const char*, GroupPages*& value) {
    if (!reader.get_bool()) return;
    storage.prefix = get_rows(reader);
    value = &storage.prefix;
  }
};

struct FieldText {
  std::ostringstream text;

  std::ostream& begin(const char* name) {
    return text << (text.view().empty() ? "" : ", ") << name << '=';
  }
  void operator()(const char* name, const Request* request) {
    begin(name) << '\'' << request->request_id() << '\'';
  }
  void operator()(const char* name, std::int32_t value) { begin(name) << value; }
  void operator()(const char* name, std::int64_t value) { begin(name) << value; }
  void operator()(const char* name, bool value) { begin(name) << (value ? "true" : "false"); }
  void operator()(const char* name, const std::string& value) { begin(name) << value; }
  void operator()(const char* name, std::span<const std::byte> value) {
    begin(name) << value.size() << " bytes";
  }
  void operator()(const char* name, const GroupPages* value) {
    begin(name) << (value == nullptr ? "none" : text_of(*value));
  }
};

template <typename... Calls>
std::optional<ManagerCall> get_coded(std::uint64_t code, FieldReader fields,
                                     std::type_identity<std::variant<Calls...>>) {
  std::optional<ManagerCall> call;
  const auto found = [&]<typename Call>(std::type_identity<Call>) {
    if (code != Call::kCode) return false;
    Call read;
    Call::visit(read, fields);
    if constexpr (requires { read.found; }) read.found = &fields.storage.found;
    if constexpr (requires { read.copies; }) read.copies = &fields.storage.copies;
    call = read;
    return true;
  };
  (found(std::type_identity<Calls>()) || ...);
  return call;
}

}  // namespace

Request* request_of(const ManagerCall& call) {
  return std::visit(
      [](const auto& each) -> Request* {
        if constexpr (requires { each.request; }) return each.request;
        return nullptr;
      },
      call);
}

std::vector<Request*> requests_of(const ManagerCall& call) {
  std::vector<Request*> requests;
  const auto note = [&]<typename Value>(const char*, const Value& value) {
    if constexpr (std::is_same_v<Value, Request*>) requests.push_back(value);
  };
  std::visit([&]<typename Call>(const Call& each) { Call::visit(each, note); }, call);
  return requests;
}

const GroupPages* found_by(const ManagerCall& call) {
  return std::visit(
      [](const auto& each) -> const GroupPages* {
        if constexpr (requires { each.found; }) return each.found;
        return nullptr;
      },
      call);
}

void put_call(ByteWriter& writer, const ManagerCall& call,
              const std::function<std::uint64_t(Request*)>& number_of) {
  std::visit(
      [&]<typename Call>(const Call& each) {
        writer.put_uint(Call::kCode);
        Call::visit(each, FieldWriter{writer, number_of});
      },
      call);
}

ManagerCall get_call(ByteReader& reader, const std::function<Request*(std::uint64_t)>& request_of,
                     CallStorage& storage) {
  const std::uint64_t code = reader.get_uint();
  const auto call =
      get_coded(code, {reader, request_of, storage}, std::type_identity<ManagerCall>());
  if (!call) reader.fail("there is no call of code ", code);
  return *call;
}

std::string text_of(const ManagerCall& call) {
  return std::visit(
      []<typename Call>(const Call& each) {
        FieldText fields;
        Call::visit(each, fields);
        return std::string(Call::kName) + "(" + fields.text.str() + ")";
      },
      call);
}

void make(CacheManager& manager, const ManagerCall& call) {
  std::visit([&](const auto& each) { each.make(manager); }, call);
}

void put_rows(ByteWriter& writer, const GroupPages& rows) {
  writer.put_uint(rows.size());
  for (const auto& row : rows) writer.put_ints(row);
}

GroupPages get_rows(ByteReader& reader) {
  GroupPages rows(reader.get_count());
  for (auto& row : rows) row = reader.get_ints();
  return rows;
}

std::string text_of(const GroupPages& rows) {
  std::ostringstream text;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    text << (i == 0 ? "[" : ", [");
    for (std::size_t page = 0; page < rows[i].size(); ++page) {
      text << (page == 0 ? "" : " ") << rows[i][page];
    }
    text << ']';
  }
  return std::move(text).str();
}

}  // namespace pagedkv
