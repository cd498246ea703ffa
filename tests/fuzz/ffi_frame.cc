#include "ffi_frame.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <sstream>

#include "thread_pool.h"

// The two types that XLA keeps to itself.
struct XLA_FFI_Error {
  XLA_FFI_Error_Code code;
  std::string message;
};

struct XLA_FFI_ExecutionContext {
  int64_t num_threads;
  bool threads_are_refused;
};

namespace pagedkv::fuzz {
namespace {

constexpr int kNumThreads = 2;
constexpr __int128 kMostBytes = __int128{64} << 20;

XLA_FFI_Error* create_error(XLA_FFI_Error_Create_Args* args) {
  return new XLA_FFI_Error{args->errc, args->message};
}

void get_message(XLA_FFI_Error_GetMessage_Args* args) {
  args->message = args->error->message.c_str();
}

void destroy_error(XLA_FFI_Error_Destroy_Args* args) { delete args->error; }

XLA_FFI_Error* schedule(XLA_FFI_ThreadPool_Schedule_Args* args) {
  if (args->ctx->threads_are_refused) {
    return new XLA_FFI_Error{XLA_FFI_Error_Code_UNIMPLEMENTED, "no threads"};
  }
  static ThreadPool pool(kNumThreads);
  pool.schedule([task = args->task, data = args->data] { task(data); });
  return nullptr;
}

XLA_FFI_Error* num_threads(XLA_FFI_ThreadPool_NumThreads_Args* args) {
  *args->num_threads = args->ctx->num_threads;
  return nullptr;
}

// There is no device, and so no stream: what runs in its place asks for none.
XLA_FFI_Error* get_stream(XLA_FFI_Stream_Get_Args* args) {
  args->stream = nullptr;
  return nullptr;
}

// What the handlers of this library call, and nothing more.
XLA_FFI_Api make_api() {
  XLA_FFI_Api api{};
  api.struct_size = XLA_FFI_Api_STRUCT_SIZE;
  api.api_version.struct_size = XLA_FFI_Api_Version_STRUCT_SIZE;
  api.api_version.major_version = XLA_FFI_API_MAJOR;
  api.api_version.minor_version = XLA_FFI_API_MINOR;
  api.XLA_FFI_Error_Create = create_error;
  api.XLA_FFI_Error_GetMessage = get_message;
  api.XLA_FFI_Error_Destroy = destroy_error;
  api.XLA_FFI_Stream_Get = get_stream;
  api.XLA_FFI_ThreadPool_Schedule = schedule;
  api.XLA_FFI_ThreadPool_NumThreads = num_threads;
  return api;
}

// A heap block of exactly some bytes.
struct Block {
  explicit Block(const Bytes& contents)
      : size(contents.size()), data(size == 0 ? nullptr : new std::byte[size]) {
    if (size != 0) std::memcpy(data.get(), contents.data(), size);
  }
  Bytes bytes() const { return {data.get(), data.get() + size}; }

  size_t size;
  std::unique_ptr<std::byte[]> data;
};

// The arrays of operands or of results. They point at each other, so they stay where they are.
struct Buffers {
  std::vector<XLA_FFI_Buffer> buffers;
  std::vector<void*> pointers;
  std::vector<std::vector<int64_t>> shapes;

  explicit Buffers(size_t size) { buffers.reserve(size), shapes.reserve(size); }

  void add(const Tensor& tensor, std::byte* data) {
    shapes.push_back(tensor.shape);
    buffers.push_back({.struct_size = XLA_FFI_Buffer_STRUCT_SIZE,
                       .extension_start = nullptr,
                       .dtype = tensor.dtype,
                       .data = data,
                       .rank = static_cast<int64_t>(tensor.shape.size()),
                       .dims = shapes.back().data()});
    pointers.push_back(&buffers.back());
  }
};

// An attribute's value as the interface has it. A string is not terminated.
struct AttributeValue {
  XLA_FFI_Scalar scalar{};
  XLA_FFI_ByteSpan string{};
  Block block;

  explicit AttributeValue(const Attribute& attribute) : block(to_bytes(attribute)) {
    scalar = {.dtype = dtype(attribute), .value = block.data.get()};
    string = {.ptr = reinterpret_cast<const char*>(block.data.get()), .len = block.size};
  }

  static Bytes to_bytes(const Attribute& attribute) {
    return std::visit(
        [](const auto& value) {
          Bytes bytes;
          if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::string>) {
            const auto* from = reinterpret_cast<const std::byte*>(value.data());
            bytes.assign(from, from + value.size());
          } else {
            const auto* from = reinterpret_cast<const std::byte*>(&value);
            bytes.assign(from, from + sizeof(value));
          }
          return bytes;
        },
        attribute.value);
  }

  static XLA_FFI_DataType dtype(const Attribute& attribute) {
    constexpr XLA_FFI_DataType kTypes[] = {XLA_FFI_DataType_PRED, XLA_FFI_DataType_S32,
                                           XLA_FFI_DataType_S64, XLA_FFI_DataType_F32,
                                           XLA_FFI_DataType_INVALID};
    return kTypes[attribute.value.index()];
  }
};

struct Attributes {
  std::vector<Attribute> sorted;  // by name, as the interface wants them
  std::vector<std::unique_ptr<AttributeValue>> values;
  std::vector<XLA_FFI_ByteSpan> spans;
  std::vector<XLA_FFI_AttrType> types;
  std::vector<XLA_FFI_ByteSpan*> names;
  std::vector<void*> pointers;

  explicit Attributes(const std::vector<Attribute>& attributes) : sorted(attributes) {
    std::ranges::sort(sorted, {}, &Attribute::name);
    spans.reserve(sorted.size());
    for (const Attribute& attribute : sorted) {
      const bool is_string = std::holds_alternative<std::string>(attribute.value);
      AttributeValue& value = *values.emplace_back(std::make_unique<AttributeValue>(attribute));
      types.push_back(is_string ? XLA_FFI_AttrType_STRING : XLA_FFI_AttrType_SCALAR);
      spans.push_back({.ptr = attribute.name.data(), .len = attribute.name.size()});
      names.push_back(&spans.back());
      pointers.push_back(is_string ? static_cast<void*>(&value.string) : &value.scalar);
    }
  }
};

void describe(std::ostream& out, const Tensor& tensor) {
  out << "dtype " << tensor.dtype << " [";
  for (const int64_t axis : tensor.shape) out << ' ' << axis;
  out << " ]";
  constexpr size_t kShown = 24;
  if (tensor.dtype != XLA_FFI_DataType_S32) return;
  for (size_t at = 0; at + 4 <= std::min(tensor.contents.size(), 4 * kShown); at += 4) {
    int32_t id;
    std::memcpy(&id, tensor.contents.data() + at, sizeof(id));
    out << ' ' << id;
  }
}

}  // namespace

int64_t element_bits(XLA_FFI_DataType dtype) {
  switch (dtype) {
    case XLA_FFI_DataType_INVALID:
    case XLA_FFI_DataType_TOKEN:
      return 0;
    case XLA_FFI_DataType_S1:
    case XLA_FFI_DataType_U1:
      return 1;
    case XLA_FFI_DataType_S2:
    case XLA_FFI_DataType_U2:
      return 2;
    case XLA_FFI_DataType_S4:
    case XLA_FFI_DataType_U4:
    case XLA_FFI_DataType_F4E2M1FN:
      return 4;
    case XLA_FFI_DataType_S16:
    case XLA_FFI_DataType_U16:
    case XLA_FFI_DataType_F16:
    case XLA_FFI_DataType_BF16:
      return 16;
    case XLA_FFI_DataType_S32:
    case XLA_FFI_DataType_U32:
    case XLA_FFI_DataType_F32:
      return 32;
    case XLA_FFI_DataType_S64:
    case XLA_FFI_DataType_U64:
    case XLA_FFI_DataType_F64:
    case XLA_FFI_DataType_C64:
      return 64;
    case XLA_FFI_DataType_C128:
      return 128;
    default:
      return 8;
  }
}

int64_t num_elements(std::span<const int64_t> shape) {
  if (std::ranges::find(shape, 0) != shape.end()) return 0;
  int64_t product = 1;
  for (const int64_t axis : shape) {
    if (__builtin_mul_overflow(product, axis, &product)) return INT64_MAX;
  }
  return product;
}

std::optional<size_t> array_bytes(XLA_FFI_DataType dtype, std::span<const int64_t> shape) {
  if (std::ranges::find(shape, 0) != shape.end()) return 0;
  __int128 bits = element_bits(dtype);
  for (const int64_t axis : shape) {
    bits *= axis;
    if (bits > 8 * kMostBytes) return std::nullopt;
  }
  return static_cast<size_t>((bits + 7) / 8);
}

Outcome run(const Call& call) {
  static const XLA_FFI_Api api = make_api();
  XLA_FFI_ExecutionContext context{call.num_threads, call.threads_are_refused};
  std::vector<Block> blocks, own_blocks;
  Buffers operands(call.operands.size()), results(call.results.size());
  for (const Tensor& operand : call.operands) {
    operands.add(operand, blocks.emplace_back(operand.contents).data.get());
  }
  for (size_t i = 0; i < call.results.size(); ++i) {
    const Tensor& result = call.results[i];
    const bool is_aliased = call.aliases[i] != kNoAlias;
    own_blocks.emplace_back(is_aliased ? Bytes() : result.contents);
    results.add(result, (is_aliased ? blocks[call.aliases[i]] : own_blocks.back()).data.get());
  }
  Attributes attributes(call.attributes);
  std::vector<XLA_FFI_ArgType> operand_types(call.operands.size(), XLA_FFI_ArgType_BUFFER);
  std::vector<XLA_FFI_RetType> result_types(call.results.size(), XLA_FFI_RetType_BUFFER);
  // Newer headers may have more members, all of which may be zero.
  XLA_FFI_CallFrame frame{};
  frame.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE;
  frame.api = &api;
  frame.ctx = &context;
  frame.stage = XLA_FFI_ExecutionStage_EXECUTE;
  frame.args = {.struct_size = XLA_FFI_Args_STRUCT_SIZE,
                .extension_start = nullptr,
                .size = static_cast<int64_t>(call.operands.size()),
                .types = operand_types.data(),
                .args = operands.pointers.data()};
  frame.rets = {.struct_size = XLA_FFI_Rets_STRUCT_SIZE,
                .extension_start = nullptr,
                .size = static_cast<int64_t>(call.results.size()),
                .types = result_types.data(),
                .rets = results.pointers.data()};
  frame.attrs = {.struct_size = XLA_FFI_Attrs_STRUCT_SIZE,
                 .extension_start = nullptr,
                 .size = static_cast<int64_t>(attributes.sorted.size()),
                 .types = attributes.types.data(),
                 .names = attributes.names.data(),
                 .attrs = attributes.pointers.data()};
  Outcome outcome;
  try {
    const std::unique_ptr<XLA_FFI_Error> error(call.handler(&frame));
    if (error != nullptr) {
      outcome.code = error->code;
      outcome.message = error->message;
    }
  } catch (const std::exception& exception) {
    outcome.code = XLA_FFI_Error_Code_UNKNOWN;
    outcome.message = exception.what();
  }
  for (const Block& block : blocks) outcome.operands.push_back(block.bytes());
  for (size_t i = 0; i < call.results.size(); ++i) {
    const bool is_aliased = call.aliases[i] != kNoAlias;
    outcome.results.push_back((is_aliased ? blocks[call.aliases[i]] : own_blocks[i]).bytes());
  }
  return outcome;
}

std::string describe(const Call& call) {
  std::ostringstream out;
  out << call.target << '\n';
  for (const Attribute& attribute : call.attributes) {
    out << "  " << attribute.name << " = ";
    std::visit([&](const auto& value) { out << value; }, attribute.value);
    out << " (type " << attribute.value.index() << ")\n";
  }
  for (const Tensor& operand : call.operands) {
    out << "  operand ";
    describe(out, operand);
    out << '\n';
  }
  for (size_t i = 0; i < call.results.size(); ++i) {
    out << "  result ";
    describe(out, call.results[i]);
    if (call.aliases[i] != kNoAlias) out << " in operand " << call.aliases[i];
    out << '\n';
  }
  out << "  threads " << call.num_threads << (call.threads_are_refused ? ", refused" : "") << '\n';
  return out.str();
}

}  // namespace pagedkv::fuzz
