#include <limits>

#include "spec_bindings.h"

namespace pagedkv {
namespace {

[[noreturn]] void throw_type_error(const std::string& message) {
  throw nb::type_error(message.c_str());
}

template <typename Int>
Int to_int(nb::handle value, std::string_view spec, const char* name) {
  if (!PyIndex_Check(value.ptr()) || PyBool_Check(value.ptr())) {
    throw_type_error(error_message(spec, name, " must be an int, got ", nb::repr(value).c_str()));
  }
  const nb::object integer = nb::steal(PyNumber_Index(value.ptr()));
  if (!integer.is_valid()) nb::raise_python_error();
  int overflow = 0;
  const long long number = PyLong_AsLongLongAndOverflow(integer.ptr(), &overflow);
  if (overflow != 0 || number < std::numeric_limits<Int>::min() ||
      number > std::numeric_limits<Int>::max()) {
    throw_value_error(spec, name, " must be an int", sizeof(Int) * 8, ", got ",
                      nb::repr(value).c_str());
  }
  return static_cast<Int>(number);
}

bool to_bool(nb::handle value, std::string_view spec, const char* name) {
  if (!PyBool_Check(value.ptr())) {
    throw_type_error(error_message(spec, name, " must be a bool, got ", nb::repr(value).c_str()));
  }
  return value.ptr() == Py_True;
}

}  // namespace

DType to_dtype(const nb::object& dtype) {
  if (nb::isinstance<nb::str>(dtype)) return DType(nb::cast<std::string>(dtype));
  if (dtype.is_none()) throw_type_error("[DType] must be a dtype or its name, got None");
  try {
    return DType(
        nb::cast<std::string>(nb::module_::import_("numpy").attr("dtype")(dtype).attr("name")));
  } catch (const nb::python_error&) {
    throw_type_error(
        error_message("DType", "must be a dtype or its name, got ", nb::repr(dtype).c_str()));
  }
}

std::int32_t to_int32(nb::handle value, std::string_view spec, const char* name) {
  return to_int<std::int32_t>(value, spec, name);
}

std::int64_t to_int64(nb::handle value, std::string_view spec, const char* name) {
  return to_int<std::int64_t>(value, spec, name);
}

std::optional<std::int32_t> to_optional_int32(nb::handle value, std::string_view spec,
                                              const char* name) {
  return value.is_none() ? std::nullopt : std::optional(to_int32(value, spec, name));
}

std::optional<std::int64_t> to_optional_int64(nb::handle value, std::string_view spec,
                                              const char* name) {
  return value.is_none() ? std::nullopt : std::optional(to_int64(value, spec, name));
}

std::int64_t to_limit(nb::handle value, const char* name) {
  return to_int64(value, "max_memory_usage_bytes", name);
}

AttentionLayout to_layout(std::string_view spec, const AttentionArguments& arguments) {
  return {
      .page_size = to_int32(arguments.page_size, spec, "page_size"),
      .num_kv_heads = to_int32(arguments.num_kv_heads, spec, "num_kv_heads"),
      .head_size = to_int32(arguments.head_size, spec, "head_size"),
      .dtype = to_dtype(arguments.dtype),
      .use_mla = to_bool(arguments.use_mla, spec, "use_mla"),
      .head_size_v = to_optional_int32(arguments.head_size_v, spec, "head_size_v"),
      .page_size_padded = to_optional_int64(arguments.page_size_padded, spec, "page_size_padded")};
}

nb::dict arguments_of(const AttentionLayout& layout) {
  nb::dict arguments;
  arguments["page_size"] = layout.page_size;
  arguments["num_kv_heads"] = layout.num_kv_heads;
  arguments["head_size"] = layout.head_size;
  arguments["dtype"] = layout.dtype.name();
  if (layout.use_mla) {
    arguments["use_mla"] = true;
  } else if (*layout.head_size_v != layout.head_size) {
    arguments["head_size_v"] = *layout.head_size_v;
  }
  if (layout.page_size_padded) arguments["page_size_padded"] = *layout.page_size_padded;
  return arguments;
}

std::string call_text(std::string_view name, const nb::dict& arguments) {
  std::string text(name);
  text += "(";
  const char* separator = "";
  for (const auto& [key, value] : arguments) {
    text += separator + nb::cast<std::string>(key) + "=" + nb::repr(value).c_str();
    separator = ", ";
  }
  return text + ")";
}

nb::tuple reduce(nb::handle type, const nb::dict& arguments) {
  const nb::object make = nb::module_::import_("functools").attr("partial")(type, **arguments);
  return nb::make_tuple(make, nb::make_tuple());
}

nb::object hash_of(std::string_view name, const nb::dict& arguments) {
  const nb::str text(call_text(name, arguments).c_str());
  return nb::module_::import_("builtins").attr("hash")(text);
}

}  // namespace pagedkv
