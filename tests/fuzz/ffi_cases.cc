#include "ffi_cases.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "handlers.h"
#include "layouts.h"
#include "pagedkv/math.h"

namespace pagedkv::fuzz {
namespace {

using Shape = std::vector<int64_t>;

constexpr XLA_FFI_DataType kDtypes[] = {
    XLA_FFI_DataType_PRED,       XLA_FFI_DataType_S1,
    XLA_FFI_DataType_S2,         XLA_FFI_DataType_S4,
    XLA_FFI_DataType_S8,         XLA_FFI_DataType_S16,
    XLA_FFI_DataType_S32,        XLA_FFI_DataType_S64,
    XLA_FFI_DataType_U1,         XLA_FFI_DataType_U2,
    XLA_FFI_DataType_U4,         XLA_FFI_DataType_U8,
    XLA_FFI_DataType_U16,        XLA_FFI_DataType_U32,
    XLA_FFI_DataType_U64,        XLA_FFI_DataType_F16,
    XLA_FFI_DataType_F32,        XLA_FFI_DataType_F64,
    XLA_FFI_DataType_BF16,       XLA_FFI_DataType_C64,
    XLA_FFI_DataType_C128,       XLA_FFI_DataType_F8E5M2,
    XLA_FFI_DataType_F8E3M4,     XLA_FFI_DataType_F8E4M3,
    XLA_FFI_DataType_F8E4M3FN,   XLA_FFI_DataType_F8E4M3B11FNUZ,
    XLA_FFI_DataType_F8E5M2FNUZ, XLA_FFI_DataType_F8E4M3FNUZ,
    XLA_FFI_DataType_F4E2M1FN,   XLA_FFI_DataType_F8E8M0FNU,
    XLA_FFI_DataType_TOKEN};  // no pool is of tokens: the last one

constexpr int64_t kExtremeSizes[] = {0,
                                     0,
                                     0,
                                     1,
                                     INT32_MAX,
                                     int64_t{1} << 31,
                                     int64_t{1} << 32,
                                     int64_t{1} << 40,
                                     (int64_t{1} << 61) + 1,
                                     int64_t{1} << 62,
                                     INT64_MAX};

constexpr XLA_FFI_DataType kCodes[] = {XLA_FFI_DataType_S8, XLA_FFI_DataType_S4,
                                       XLA_FFI_DataType_F8E4M3FN, XLA_FFI_DataType_F8E5M2};
constexpr XLA_FFI_DataType kFloats[] = {XLA_FFI_DataType_F32, XLA_FFI_DataType_F16,
                                        XLA_FFI_DataType_BF16};

// A product of sizes, some of them extreme.
int64_t times(int64_t a, int64_t b) { return checked_mul(a, b).value_or(INT64_MAX); }

Shape joined(Shape shape, const Shape& more) {
  shape.insert(shape.end(), more.begin(), more.end());
  return shape;
}

Shape without(Shape shape, size_t axis) {
  shape.erase(shape.begin() + static_cast<ptrdiff_t>(axis));
  return shape;
}

// One call in the making.
class Draft {
 public:
  explicit Draft(Random& random) : random_(random) {
    // Large enough, now and then, for streaming stores and several threads.
    is_large_ = random.one_in(4096);
    is_extreme_ = !is_large_ && random.one_in(20);
    is_layered_ = random.one_in(2);
    raises_ = random.one_in(8);
    // A call has no bad ids at all, or some in every array of them.
    one_id_in_ = random.one_in(8) ? 0 : random.between(1, 5);
    for (int64_t axes = random.one_in(3) ? random.between(1, 2) : 0; axes > 0 && !is_large_;
         --axes) {
      batch_.push_back(random.one_in(16) ? 0 : size(1, 2));
    }
    call_.num_threads = random.between(0, 4);
    call_.threads_are_refused = random.one_in(16);
  }

  Case finish() {
    // Drawn first, since what it has drawn decides what may come of the call.
    const Expectation expectation = is_extreme_               ? Expectation::kAnything
                                    : raises_ && has_bad_ids_ ? Expectation::kOutOfRange
                                                              : Expectation::kSuccess;
    return {std::move(call_), expectation, has_bad_ids_};
  }

  void write_kv(bool is_quantized) {
    const Layout& layout = random_.pick(kLayouts);
    start("write_kv");
    const XLA_FFI_DataType dtype = draw_pool(layout, is_quantized);
    const XLA_FFI_DataType row_dtype = is_quantized ? random_.pick(kFloats) : dtype;
    const int64_t tokens = is_large_ ? 600 : size(0, 9);
    int64_t num_slots = times(pages_, page_size_);
    call_.operands.push_back(ids(joined(batch_, {tokens}), num_slots));
    call_.operands.push_back(layers(batch_));
    call_.results.push_back(count(batch_));
    std::vector<Tensor> scales, rows;
    const auto granularity = random_.between(0, 2);
    for (size_t i = 0; i < layout.num_pools(); ++i) {
      const Shape axes = pool_axes(layout, i == 0 ? dim_ : value_dim_);
      call_.operands.push_back(array(dtype, joined(batch_and_layers(batch_), axes)));
      scales.push_back(array(XLA_FFI_DataType_F32, joined(batch_and_layers(batch_),
                                                          scale_axes(layout, axes, granularity))));
    }
    for (size_t i = 0; i < layout.num_streams(); ++i) {
      Shape row = joined(batch_, {tokens});
      if (layout.has_heads()) row.push_back(heads_);
      row.push_back(i == 0 ? dim_ : value_dim_);
      rows.push_back(array(row_dtype, row));
    }
    if (is_quantized) append(scales);
    alias_all_from(2);
    append(rows);
    attribute("layout", std::string(layout.name));
    attribute("layered", is_layered_);
  }

  // `into` a given array, or `through` the op, or neither.
  void gather(bool into, bool through) {
    start("gather_pages");
    const Layout& layout = random_.pick(kLayouts);
    const XLA_FFI_DataType dtype = draw_pool(layout, false);
    const Shape axes = pool_axes(layout, dim_), id_axes = draw_id_axes();
    const Tensor rows =
        array(dtype, joined(joined(batch_, id_axes), without(axes, layout.page_axis())));
    const Shape pool_batch = through ? batch_ : broadcast();
    call_.operands.push_back(array(dtype, joined(batch_and_layers(pool_batch), axes)));
    if (into) call_.operands.push_back(rows);
    call_.operands.push_back(ids(joined(broadcast(), id_axes), pages_));
    call_.operands.push_back(layers(broadcast()));
    if (through) add_result(call_.operands[0], 0);
    add_result(rows, into ? 1 : kNoAlias);
    call_.results.push_back(count(batch_));
    attribute("layered", is_layered_);
    attribute("page_axis", static_cast<int64_t>(layout.page_axis()));
  }

  void gather_dequantized() {
    start("gather_pages");
    const Layout& layout = random_.pick(kLayouts);
    const XLA_FFI_DataType dtype = draw_pool(layout, true);
    const Shape axes = pool_axes(layout, dim_), id_axes = draw_id_axes();
    call_.operands.push_back(array(dtype, joined(batch_and_layers(broadcast()), axes)));
    call_.operands.push_back(array(
        XLA_FFI_DataType_F32,
        joined(batch_and_layers(broadcast()), scale_axes(layout, axes, random_.between(0, 2)))));
    call_.operands.push_back(ids(joined(broadcast(), id_axes), pages_));
    call_.operands.push_back(layers(broadcast()));
    add_result(array(random_.pick(kFloats),
                     joined(joined(batch_, id_axes), without(axes, layout.page_axis()))),
               kNoAlias);
    call_.results.push_back(count(batch_));
    attribute("layout", std::string(layout.name));
    attribute("layered", is_layered_);
  }

  void scatter() {
    start("scatter_pages");
    const Layout& layout = random_.pick(kLayouts);
    const XLA_FFI_DataType dtype = draw_pool(layout, false);
    const Shape axes = pool_axes(layout, dim_), id_axes = draw_id_axes();
    call_.operands.push_back(array(dtype, joined(batch_and_layers(batch_), axes)));
    call_.operands.push_back(
        array(dtype, joined(joined(batch_, id_axes), without(axes, layout.page_axis()))));
    call_.operands.push_back(ids(joined(batch_, id_axes), pages_));
    call_.operands.push_back(layers(batch_));
    add_result(call_.operands[0], 0);
    call_.results.push_back(count(batch_));
    attribute("layered", is_layered_);
    attribute("page_axis", static_cast<int64_t>(layout.page_axis()));
  }

  void copy() {
    start("copy_pages");
    const Layout& layout = draw_pages();
    const Shape pairs = joined(batch_, {is_large_ ? 500 : size(0, 9)});
    call_.operands.push_back(ids(pairs, pages_));
    call_.operands.push_back(ids(pairs, pages_));
    call_.results.push_back(count(batch_));
    append(draw_pools(layout));
    alias_all_from(2);
    attribute("page_axis", static_cast<int64_t>(pools_page_axis(layout)));
  }

  void move(bool to_rows) {
    start("move_pages");
    const Layout& layout = draw_pages();
    const std::vector<Tensor> pools = draw_pools(layout);
    const size_t page_axis = pools_page_axis(layout);
    int64_t page_bytes = 0;
    for (const Tensor& pool : pools) {
      const Shape axes(pool.shape.begin() + static_cast<ptrdiff_t>(batch_.size()),
                       pool.shape.end());
      int64_t elements = 1;
      for (const int64_t axis : without(axes, page_axis)) elements = times(elements, axis);
      page_bytes = saturating_add(page_bytes, times(elements, element_bits(pool.dtype)) / 8);
    }
    const Shape wanted = joined(batch_, {is_large_ ? 500 : size(0, 9)});
    call_.operands.push_back(ids(wanted, pages_));
    call_.operands.push_back(array(XLA_FFI_DataType_U8, joined(wanted, {page_bytes})));
    call_.results.push_back(count(batch_));
    if (to_rows) add_result(call_.operands[1], 1);
    append(pools);
    alias_all_from(2);
    attribute("page_axis", static_cast<int64_t>(page_axis));
  }

  void attention() {
    start("paged_attention");
    const Layout& layout = random_.pick(kLayouts);
    const bool is_quantized = random_.one_in(2);
    const XLA_FFI_DataType dtype = draw_attended(layout, is_quantized);
    const XLA_FFI_DataType query_dtype = random_.pick(kFloats);
    const int64_t tokens = is_large_ ? 100 : size(0, 6), width = is_large_ ? 60 : size(1, 4);
    const int64_t requests = size(0, 3), group = size(1, 5);
    const int64_t query_heads = times(heads_, group);
    if (is_large_) batch_.clear();
    call_.operands.push_back(floats(query_dtype, joined(broadcast(), {tokens, query_heads, dim_})));
    const bool had_bad_ids = has_bad_ids_;
    call_.operands.push_back(ids(joined(broadcast(), {requests, width}), pages_));
    add_requests(tokens, requests, times(width, page_size_));
    has_bad_ids_ = had_bad_ids;
    call_.operands.push_back(layers(broadcast()));
    call_.operands.push_back(mask_count(1, 20));
    call_.operands.push_back(mask_count(1, 20));
    call_.operands.push_back(mask_count(0, 9));
    const int64_t num_sinks = random_.one_in(2) ? query_heads : 0;
    call_.operands.push_back(floats(XLA_FFI_DataType_F32, joined(broadcast(), {num_sinks})));
    std::vector<Tensor> scales;
    const int64_t granularity = random_.between(0, 2);
    for (size_t i = 0; i < layout.num_pools(); ++i) {
      const Shape axes = pool_axes(layout, i == 0 ? dim_ : value_dim_);
      const Shape batch = broadcast();
      call_.operands.push_back(floats(dtype, joined(batch_and_layers(batch), axes)));
      scales.push_back(floats(XLA_FFI_DataType_F32, joined(batch_and_layers(broadcast()),
                                                           scale_axes(layout, axes, granularity))));
    }
    if (is_quantized) append(scales);
    add_result(array(query_dtype, joined(batch_, {tokens, query_heads, value_dim_})), kNoAlias);
    call_.results.push_back(count(batch_));
    attribute("layout", std::string(layout.name));
    attribute("layered", is_layered_);
    attribute("group_size", group);
    attribute("scale", random_.one_in(16) ? INFINITY : 0.5F);
    attribute("soft_cap", random_.one_in(3) ? 2.0F : 0.0F);
    constexpr std::string_view kSets[] = {"best", "best", "portable"};
    attribute("instruction_set", std::string(random_.pick(kSets)));
    // Whether anything is wrong with a batch takes as much to find out as the handler does.
    if (raises_ && one_id_in_ != 0) is_extreme_ = true;
  }

 private:
  void start(std::string_view operation) {
    call_.operation = operation;
    attribute("mode", std::string(raises_ ? "raise" : "drop"));
  }

  int64_t size(int64_t low, int64_t high) {
    if (is_extreme_ && random_.one_in(3)) return random_.pick(kExtremeSizes);
    return random_.between(low, high);
  }

  const Layout& draw_pages() {
    num_layers_ = size(1, 3);
    pages_ = is_large_ ? 70 : size(1, 5);
    page_size_ = is_large_ ? 16 : size(1, 4);
    return random_.pick(kLayouts);
  }

  XLA_FFI_DataType draw_pool(const Layout& layout, bool is_quantized) {
    draw_pages();
    heads_ = size(1, 3);
    dim_ = is_large_ ? 1024 : size(0, 6);
    value_dim_ = layout.is_separate && !is_large_ && random_.one_in(2) ? size(1, 6) : dim_;
    const XLA_FFI_DataType dtype = is_quantized ? random_.pick(kCodes) : storable();
    if (element_bits(dtype) >= 8) return dtype;
    // Elements of less than a byte cannot lie apart.
    if (layout.name == "LATENT_TRANSPOSED") {
      return is_quantized ? XLA_FFI_DataType_S8 : XLA_FFI_DataType_BF16;
    }
    if (!is_large_) dim_ = times(dim_, 8), value_dim_ = times(value_dim_, 8);
    return dtype;
  }

  // A pool, its heads and their elements, as attention has them.
  XLA_FFI_DataType draw_attended(const Layout& layout, bool is_quantized) {
    draw_pages();
    heads_ = layout.has_heads() ? size(1, 3) : 1;
    dim_ = is_large_ ? 64 : random_.one_in(3) ? times(16, size(1, 3)) : size(1, 20);
    value_dim_ = random_.one_in(2) ? dim_ : size(1, 20);
    if (!layout.is_separate) value_dim_ = dim_;
    if (!layout.has_heads() && random_.one_in(2)) {
      value_dim_ = random_.between(1, std::clamp<int64_t>(dim_, 1, 64));
    }
    XLA_FFI_DataType dtype = random_.pick(kFloats);
    if (is_quantized) dtype = random_.pick(kCodes);
    if (element_bits(dtype) >= 8) return dtype;
    if (layout.name == "LATENT_TRANSPOSED") return XLA_FFI_DataType_S8;
    dim_ = times(dim_, 2), value_dim_ = times(value_dim_, 2);  // whole bytes
    return dtype;
  }

  // A count of a mask, rarely one that cannot be.
  Tensor mask_count(int64_t low, int64_t high) {
    return int32s(broadcast(), [&](size_t) {
      if (one_id_in_ != 0 && random_.one_in(12)) return bad_id(random_, 0);
      if (random_.one_in(3)) return low == 0 ? 0 : INT32_MAX;
      return static_cast<int32_t>(random_.between(low, high));
    });
  }

  XLA_FFI_DataType storable() { return kDtypes[random_.below(std::size(kDtypes) - 1)]; }

  // Room for rows of `dim` elements in `heads_` heads, or for more in layouts that pad.
  Shape pool_axes(const Layout& layout, int64_t dim) {
    Shape axes;
    int64_t heads = heads_;
    if (layout.pads && padding_ == 0) padding_ = random_.between(1, 2);
    if (layout.pads && layout.has_heads() && padding_ == 2) heads = times(heads, 2);
    if (layout.pads) dim = times(dim, padding_);
    if (layout.is_interleaved) heads = times(heads, 2);
    if (layout.is_side_by_side) dim = times(dim, 2);
    for (size_t axis = 0; axis < layout.axes.size(); ++axis) {
      // Of two axes that count together, the later one is the pack.
      const bool is_pack = axis > 0 && layout.axes[axis] == layout.axes[axis - 1];
      switch (layout.axes[axis]) {
        case 'P':
          axes.push_back(pages_);
          break;
        case 'T':
          axes.push_back(is_pack ? 1 : page_size_);
          break;
        case 'H':
          axes.push_back(is_pack ? 1 : heads);
          break;
        default:
          axes.push_back(dim);
      }
      if (is_pack && axes[axis - 1] % 2 == 0 && padding_ == 2) {
        axes[axis - 1] /= 2;
        axes[axis] = 2;
      }
    }
    return axes;
  }

  static Shape scale_axes(const Layout& layout, const Shape& pool_axes, int64_t granularity) {
    Shape axes;
    for (size_t axis = 0; axis < pool_axes.size(); ++axis) {
      const char role = layout.axes[axis];
      if (role == 'H' || (role == 'P' && granularity > 0) || (role == 'T' && granularity > 1)) {
        axes.push_back(pool_axes[axis]);
      }
    }
    if (layout.is_side_by_side) axes.push_back(2);
    return axes;
  }

  Shape batch_and_layers(const Shape& batch) const {
    return is_layered_ ? joined(batch, {num_layers_}) : batch;
  }

  // The batch, or 1 where vmap would not have mapped the operand.
  Shape broadcast() {
    Shape shape = batch_;
    for (int64_t& axis : shape) {
      if (random_.one_in(3)) axis = 1;
    }
    return shape;
  }

  Shape draw_id_axes() {
    Shape axes;
    for (int64_t rank = random_.between(0, 2); rank > 0; --rank) {
      axes.push_back(is_large_ ? 20 : size(0, 4));
    }
    return axes;
  }

  // Pools as a model's layers have them: of several dtypes, and of one number of pages.
  std::vector<Tensor> draw_pools(const Layout& layout) {
    std::vector<Tensor> pools;
    for (int64_t left = random_.between(1, 3); left > 0; --left) {
      const int64_t pages = pages_, page_size = page_size_;
      const XLA_FFI_DataType dtype = draw_pool(layout, false);
      pages_ = pages, page_size_ = page_size;
      Shape axes = pool_axes(layout, dim_);
      if (is_layered_) axes.insert(axes.begin(), num_layers_);
      pools.push_back(array(dtype, joined(batch_, axes)));
    }
    return pools;
  }

  // A layer axis is none of these ops' business: it is one of those before the pages.
  size_t pools_page_axis(const Layout& layout) const {
    return layout.page_axis() + (is_layered_ ? 1 : 0);
  }

  void add_requests(int64_t tokens, int64_t requests, int64_t capacity) {
    const bool is_garbage = one_id_in_ != 0 && random_.one_in(3);
    const int64_t num_starts = requests == INT64_MAX ? requests : requests + 1;
    std::vector<int64_t> most_queries;  // of a request, over the batch
    int64_t start = 0;
    call_.operands.push_back(int32s(joined(broadcast(), {num_starts}), [&](size_t i) {
      if (is_garbage && random_.one_in(2)) return bad_id(random_, tokens);
      const size_t request = i % static_cast<size_t>(num_starts);
      if (request == 0) return static_cast<int32_t>(start = 0);
      const int64_t left =
          std::clamp<int64_t>(tokens - start, 0, std::min<int64_t>(capacity, 4096));
      const int64_t queries = random_.between(0, left);
      most_queries.resize(std::max(most_queries.size(), request));
      most_queries[request - 1] = std::max(most_queries[request - 1], queries);
      return static_cast<int32_t>(start += queries);
    }));
    call_.operands.push_back(int32s(joined(broadcast(), {requests}), [&](size_t i) {
      if (is_garbage && random_.one_in(2)) return bad_id(random_, capacity);
      const size_t request = i % static_cast<size_t>(requests);
      const int64_t queries = request < most_queries.size() ? most_queries[request] : 0;
      return static_cast<int32_t>(
          random_.between(queries, std::max<int64_t>(queries, std::min<int64_t>(capacity, 4096))));
    }));
  }

  static Tensor array(XLA_FFI_DataType dtype, Shape shape) {
    return {.dtype = dtype, .shape = std::move(shape), .contents = {}};
  }

  static Tensor count(Shape shape) { return array(XLA_FFI_DataType_S32, std::move(shape)); }

  template <typename Value>
  static Tensor int32s(Shape shape, const Value& value) {
    Tensor tensor = array(XLA_FFI_DataType_S32, std::move(shape));
    const size_t num_bytes = array_bytes(tensor.dtype, tensor.shape).value_or(0);
    tensor.contents.resize(num_bytes);
    for (size_t i = 0; i < num_bytes / 4; ++i) {
      const int32_t number = value(i);
      std::memcpy(tensor.contents.data() + 4 * i, &number, sizeof(number));
    }
    return tensor;
  }

  Tensor ids(Shape shape, int64_t bound) {
    return int32s(std::move(shape), [&](size_t) {
      const bool is_bad = one_id_in_ != 0 && random_.one_in(static_cast<uint64_t>(one_id_in_));
      const int64_t most = std::min<int64_t>(bound, INT32_MAX);
      const int32_t id = is_bad || most == 0 ? bad_id(random_, bound)
                                             : static_cast<int32_t>(random_.between(0, most - 1));
      has_bad_ids_ |= id != -1 && (id < 0 || id >= bound);
      return id;
    });
  }

  // Padding is no layer.
  Tensor layers(Shape shape) {
    const int64_t bound = is_layered_ ? num_layers_ : 1;
    return int32s(std::move(shape), [&](size_t) {
      const bool is_bad = one_id_in_ != 0 && random_.one_in(8);
      const int64_t most = std::min<int64_t>(bound, INT32_MAX);
      const int32_t id = is_bad || most == 0 ? bad_id(random_, bound)
                                             : static_cast<int32_t>(random_.between(0, most - 1));
      has_bad_ids_ |= id < 0 || id >= bound;
      return id;
    });
  }

  // Numbers as attention has them, or any bits at all.
  Tensor floats(XLA_FFI_DataType dtype, Shape shape) {
    Tensor tensor = array(dtype, std::move(shape));
    const auto num_bytes = array_bytes(tensor.dtype, tensor.shape).value_or(0);
    if (random_.one_in(8) || element_bits(dtype) <= 8) return tensor;
    tensor.contents.resize(num_bytes);
    const size_t width = dtype == XLA_FFI_DataType_F32 ? 4 : 2;
    for (size_t at = 0; at < num_bytes; at += width) {
      const float value = static_cast<float>(random_.between(-64, 64)) / 32;
      // bfloat16 is the upper half, which is the later one in memory.
      std::memcpy(tensor.contents.data() + at,
                  reinterpret_cast<const std::byte*>(&value) + (4 - width), width);
    }
    return tensor;
  }

  void append(const std::vector<Tensor>& tensors) {
    call_.operands.insert(call_.operands.end(), tensors.begin(), tensors.end());
  }

  void add_result(const Tensor& tensor, size_t alias) {
    call_.aliases.resize(call_.results.size(), kNoAlias);
    call_.results.push_back(array(tensor.dtype, tensor.shape));
    // XLA copies an operand that is used later before it hands it over, but other runtimes may not.
    call_.aliases.push_back(random_.one_in(4) ? kNoAlias : alias);
  }

  void alias_all_from(size_t operand) {
    for (; operand < call_.operands.size(); ++operand) add_result(call_.operands[operand], operand);
  }

  template <typename Value>
  void attribute(std::string name, Value value) {
    call_.attributes.push_back({std::move(name), std::move(value)});
  }

  Random& random_;
  Call call_;
  bool is_large_, is_extreme_, is_layered_, raises_;
  bool has_bad_ids_ = false;
  int64_t one_id_in_;  // is bad; 0 for none
  Shape batch_;
  int64_t num_layers_ = 1, pages_ = 1, page_size_ = 1, heads_ = 1, dim_ = 1, value_dim_ = 1;
  int64_t padding_ = 0;  // how many times the elements of a row a layout that pads has
};

struct Target {
  std::string_view name;
  XLA_FFI_Handler* handler;
  void (*draw)(Draft& draft);
};

constexpr Target kTargets[] = {
    {"write_kv", PagedkvWriteKv, [](Draft& draft) { draft.write_kv(false); }},
    {"write_kv_quantized", PagedkvWriteKvQuantized, [](Draft& draft) { draft.write_kv(true); }},
    {"gather_pages", PagedkvGatherPages, [](Draft& draft) { draft.gather(false, false); }},
    {"gather_into", PagedkvGatherInto, [](Draft& draft) { draft.gather(true, false); }},
    {"gather_through", PagedkvGatherThrough, [](Draft& draft) { draft.gather(false, true); }},
    {"gather_dequantized", PagedkvGatherDequantized,
     [](Draft& draft) { draft.gather_dequantized(); }},
    {"scatter_pages", PagedkvScatterPages, [](Draft& draft) { draft.scatter(); }},
    {"copy_pages", PagedkvCopyPages, [](Draft& draft) { draft.copy(); }},
    {"pages_to_rows", PagedkvPagesToRows, [](Draft& draft) { draft.move(true); }},
    {"rows_to_pages", PagedkvRowsToPages, [](Draft& draft) { draft.move(false); }},
    {"paged_attention", PagedkvPagedAttention, [](Draft& draft) { draft.attention(); }},
};

}  // namespace

std::span<const XLA_FFI_DataType> all_dtypes() { return kDtypes; }

std::span<const int64_t> extreme_sizes() { return kExtremeSizes; }

int32_t bad_id(Random& random, int64_t bound) {
  const auto near = [](int64_t id) {
    return static_cast<int32_t>(std::clamp<int64_t>(id, INT32_MIN, INT32_MAX));
  };
  const int32_t ids[] = {-1,
                         INT32_MIN,
                         INT32_MAX,
                         -2,
                         near(bound),
                         near(saturating_add<int64_t>(bound, 1)),
                         static_cast<int32_t>(random.next())};
  return random.pick(ids);
}

bool settle(Call& call, Random& random) {
  call.aliases.resize(call.results.size(), kNoAlias);
  for (auto* tensors : {&call.operands, &call.results}) {
    for (Tensor& tensor : *tensors) {
      const auto num_bytes = array_bytes(tensor.dtype, tensor.shape);
      if (!num_bytes) return false;
      const size_t old_size = std::min(tensor.contents.size(), *num_bytes);
      tensor.contents.resize(*num_bytes);
      random.fill(std::span(tensor.contents).subspan(old_size));
    }
  }
  std::vector<bool> is_taken(call.operands.size(), false);
  for (size_t i = 0; i < call.results.size(); ++i) {
    size_t& alias = call.aliases[i];
    if (alias == kNoAlias) continue;
    if (alias >= call.operands.size() || is_taken[alias] ||
        call.operands[alias].contents.size() != call.results[i].contents.size()) {
      alias = kNoAlias;
    } else {
      is_taken[alias] = true;
    }
  }
  return true;
}

Case make_case(Random& random) {
  while (true) {
    const Target& target = random.pick(kTargets);
    Draft draft(random);
    target.draw(draft);
    Case made = draft.finish();
    made.call.target = target.name;
    made.call.handler = target.handler;
    if (settle(made.call, random)) return made;
  }
}

}  // namespace pagedkv::fuzz
