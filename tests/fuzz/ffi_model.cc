#include "ffi_model.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "layouts.h"

namespace pagedkv::fuzz {
namespace {

using Index = std::vector<int64_t>;

int32_t int32_at(const Bytes& bytes, int64_t i) {
  if (i < 0 || static_cast<size_t>(4 * i + 4) > bytes.size()) throw std::out_of_range("ids");
  int32_t number;
  std::memcpy(&number, bytes.data() + 4 * i, sizeof(number));
  return number;
}

int32_t id_at(const Tensor& ids, int64_t i) { return int32_at(ids.contents, i); }

void set_count(Bytes& counts, int64_t i, int32_t count) {
  if (i < 0 || static_cast<size_t>(4 * i + 4) > counts.size()) throw std::out_of_range("counts");
  std::memcpy(counts.data() + 4 * i, &count, sizeof(count));
}

bool is_bad(int32_t id, int64_t bound) { return id != -1 && (id < 0 || id >= bound); }
bool is_good(int32_t id, int64_t bound) { return id >= 0 && id < bound; }

// Element i of `to` becomes element j of `from`, or zero. Both have elements of `bits`.
void copy_element(int64_t bits, Bytes& to, int64_t i, const Bytes* from, int64_t j) {
  if (bits == 0) return;  // a token
  const auto check = [&](const Bytes& bytes, int64_t at) {
    if (at < 0 || static_cast<size_t>((at + 1) * bits) > 8 * bytes.size()) {
      throw std::out_of_range("element " + std::to_string(at));
    }
  };
  check(to, i);
  if (from != nullptr) check(*from, j);
  const auto target = static_cast<size_t>(i * bits), source = static_cast<size_t>(j * bits);
  if (bits >= 8) {
    const auto width = static_cast<size_t>(bits / 8);
    if (from == nullptr) {
      std::memset(to.data() + target / 8, 0, width);
    } else {
      std::memcpy(to.data() + target / 8, from->data() + source / 8, width);
    }
    return;
  }
  // The first of the elements in a byte is in its lowest bits.
  const unsigned mask = (1U << bits) - 1;
  const unsigned value =
      from == nullptr ? 0 : static_cast<unsigned>((*from)[source / 8]) >> (source % 8) & mask;
  const unsigned rest = static_cast<unsigned>(to[target / 8]) & ~(mask << (target % 8));
  to[target / 8] = static_cast<std::byte>(rest | value << (target % 8));
}

int64_t flat_index(const Index& index, std::span<const int64_t> shape) {
  if (index.size() != shape.size()) throw std::logic_error("rank");
  int64_t flat = 0;
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    if (index[axis] < 0 || index[axis] >= shape[axis]) throw std::out_of_range("axis");
    flat = flat * shape[axis] + index[axis];
  }
  return flat;
}

// The index in `shape` with number `flat`. An axis of 1 in `own` is there for all of the shape's.
int64_t broadcast_index(int64_t flat, std::span<const int64_t> shape,
                        std::span<const int64_t> own) {
  Index index(shape.size());
  for (size_t axis = shape.size(); axis-- > 0;) {
    index[axis] = own[axis] == 1 ? 0 : flat % shape[axis];
    flat /= shape[axis];
  }
  return flat_index(index, own);
}

bool flag(const Call& call, std::string_view name) {
  for (const Attribute& attribute : call.attributes) {
    if (attribute.name == name) return std::get<bool>(attribute.value);
  }
  throw std::logic_error("attribute");
}

int64_t number(const Call& call, std::string_view name) {
  for (const Attribute& attribute : call.attributes) {
    if (attribute.name == name) return std::get<int64_t>(attribute.value);
  }
  throw std::logic_error("attribute");
}

const Layout& layout_of(const Call& call) {
  for (const Attribute& attribute : call.attributes) {
    if (attribute.name != "layout") continue;
    const auto* found =
        std::ranges::find(kLayouts, std::get<std::string>(attribute.value), &Layout::name);
    if (found != kLayouts.end()) return *found;
  }
  throw std::logic_error("layout");
}

// What should be in the results, and starts as what was in them, or in the operand that came along.
struct Expected {
  std::vector<Bytes> results;
};

// A pool as pages: [*batch, layers, outer, pages, inner] elements.
struct Pages {
  std::vector<int64_t> batch;
  int64_t bits, layers, outer, pages, inner;

  Pages(const Tensor& pool, size_t batch_rank, bool layered, int64_t page_axis)
      : bits(element_bits(pool.dtype)), layers(1) {
    const std::span<const int64_t> shape = pool.shape;
    batch.assign(shape.begin(), shape.begin() + static_cast<ptrdiff_t>(batch_rank));
    auto axes = shape.subspan(batch_rank);
    if (layered) layers = axes[0], axes = axes.subspan(1);
    const auto page = static_cast<size_t>(page_axis);
    if (page >= axes.size()) throw std::logic_error("page_axis");
    outer = num_elements(axes.first(page)), pages = axes[page];
    inner = num_elements(axes.subspan(page + 1));
  }
  int64_t page_elements() const { return outer * inner; }
  int64_t page_bits() const { return page_elements() * bits; }
  // Element `i` of a page, as they lie in a page of its own.
  int64_t element(int64_t batch_index, int64_t layer, int64_t page, int64_t i) const {
    if (page < 0 || page >= pages || layer < 0 || layer >= layers) throw std::out_of_range("page");
    return (((batch_index * layers + layer) * outer + i / inner) * pages + page) * inner +
           i % inner;
  }
};

// Rows of pages, from a pool or to it.
void gather(const Call& call, size_t pool_index, size_t ids_index, size_t rows_result,
            Expected& expected) {
  const Tensor &pool = call.operands[pool_index], &ids = call.operands[ids_index],
               &layer = call.operands[ids_index + 1];
  const std::vector<int64_t>& batch = call.results.back().shape;
  const Pages pages(pool, batch.size(), flag(call, "layered"), number(call, "page_axis"));
  const auto ids_batch = std::span(ids.shape).first(batch.size());
  const int64_t num_ids = num_elements(std::span(ids.shape).subspan(batch.size()));
  const int64_t elements = pages.page_elements();
  for (int64_t b = 0; b < num_elements(batch); ++b) {
    const int64_t pool_b = broadcast_index(b, batch, pages.batch);
    const int64_t ids_b = broadcast_index(b, batch, ids_batch);
    const int32_t wanted = id_at(layer, broadcast_index(b, batch, layer.shape));
    const int64_t bound = is_good(wanted, pages.layers) ? pages.pages : 0;
    int32_t num_dropped = 0;
    for (int64_t i = 0; i < num_ids; ++i) {
      const int32_t id = id_at(ids, ids_b * num_ids + i);
      num_dropped += is_bad(id, bound);
      for (int64_t e = 0; e < elements; ++e) {
        copy_element(pages.bits, expected.results[rows_result], (b * num_ids + i) * elements + e,
                     is_good(id, bound) ? &pool.contents : nullptr,
                     is_good(id, bound) ? pages.element(pool_b, wanted, id, e) : 0);
      }
    }
    set_count(expected.results.back(), b, num_dropped);
  }
}

void scatter(const Call& call, Expected& expected) {
  const Tensor &pool = call.operands[0], &rows = call.operands[1], &ids = call.operands[2],
               &layer = call.operands[3];
  const Pages pages(pool, layer.shape.size(), flag(call, "layered"), number(call, "page_axis"));
  const int64_t num_ids = num_elements(std::span(ids.shape).subspan(layer.shape.size()));
  const int64_t elements = pages.page_elements();
  for (int64_t b = 0; b < num_elements(layer.shape); ++b) {
    const int64_t bound = is_good(id_at(layer, b), pages.layers) ? pages.pages : 0;
    int32_t num_dropped = 0;
    for (int64_t i = 0; i < num_ids; ++i) {
      const int32_t id = id_at(ids, b * num_ids + i);
      num_dropped += is_bad(id, bound);
      for (int64_t e = 0; is_good(id, bound) && e < elements; ++e) {
        copy_element(pages.bits, expected.results[0], pages.element(b, id_at(layer, b), id, e),
                     &rows.contents, (b * num_ids + i) * elements + e);
      }
    }
    set_count(expected.results[1], b, num_dropped);
  }
}

void copy(const Call& call, Expected& expected) {
  const Tensor &sources = call.operands[0], &targets = call.operands[1];
  const std::vector<int64_t>& batch = call.results[0].shape;
  const int64_t num_pairs = sources.shape.back();
  for (int64_t b = 0; b < num_elements(batch); ++b) {
    int32_t num_dropped = 0;
    for (int64_t i = 0; i < num_pairs; ++i) {
      const int32_t source = id_at(sources, b * num_pairs + i);
      const int32_t target = id_at(targets, b * num_pairs + i);
      for (size_t pool = 2; pool < call.operands.size(); ++pool) {
        const Tensor& before = call.operands[pool];
        const Pages pages(before, batch.size(), false, number(call, "page_axis"));
        const bool is_pair = source != -1 && target != -1;
        const bool is_dropped = is_bad(source, pages.pages) || is_bad(target, pages.pages);
        if (pool == 2) num_dropped += is_pair && is_dropped;
        for (int64_t e = 0; is_pair && !is_dropped && e < pages.page_elements(); ++e) {
          copy_element(pages.bits, expected.results[pool - 1], pages.element(b, 0, target, e),
                       &before.contents, pages.element(b, 0, source, e));
        }
      }
    }
    set_count(expected.results[0], b, num_dropped);
  }
}

// A row has a page of each pool, one behind the other.
void move(const Call& call, bool to_rows, Expected& expected) {
  const Tensor &ids = call.operands[0], &rows = call.operands[1];
  const std::vector<int64_t>& batch = call.results[0].shape;
  const int64_t num_ids = ids.shape.back();
  const size_t first_pool_result = to_rows ? 2 : 1;
  for (int64_t b = 0; b < num_elements(batch); ++b) {
    int32_t num_dropped = 0;
    for (int64_t i = 0; i < num_ids; ++i) {
      const int32_t id = id_at(ids, b * num_ids + i);
      int64_t bit = (b * num_ids + i) * rows.shape.back() * 8;
      for (size_t pool = 2; pool < call.operands.size(); ++pool) {
        const Tensor& before = call.operands[pool];
        const Pages pages(before, batch.size(), false, number(call, "page_axis"));
        const bool exists = is_good(id, pages.pages);
        if (pool == 2) num_dropped += is_bad(id, pages.pages);
        for (int64_t e = 0; e < pages.page_elements(); ++e) {
          // Elements of two bytes or more may lie at any byte of a row.
          const int64_t at = bit + e * pages.bits;
          const int64_t unit = std::clamp<int64_t>(pages.bits, 1, 8);
          const int64_t parts = pages.bits / unit;
          for (int64_t part = 0; part < parts; ++part) {
            const int64_t in_row = at / unit + part;
            if (to_rows) {
              copy_element(unit, expected.results[1], in_row, exists ? &before.contents : nullptr,
                           exists ? pages.element(b, 0, id, e) * parts + part : 0);
            } else if (exists) {
              copy_element(unit, expected.results[first_pool_result + pool - 2],
                           pages.element(b, 0, id, e) * parts + part, &rows.contents, in_row);
            }
          }
        }
        bit += pages.page_bits();
      }
    }
    set_count(expected.results[0], b, num_dropped);
  }
}

// Where an element of a token's row is, in one layer of a pool.
Index element_index(const Layout& layout, std::span<const int64_t> axes, size_t stream,
                    int64_t page, int64_t token, int64_t head, int64_t element) {
  if (layout.is_interleaved) head = 2 * head + static_cast<int64_t>(stream);
  if (layout.is_side_by_side) element += static_cast<int64_t>(stream) * (axes.back() / 2);
  Index index;
  for (size_t axis = 0; axis < axes.size(); ++axis) {
    const char role = layout.axes[axis];
    int64_t at = role == 'P' ? page : role == 'T' ? token : role == 'H' ? head : element;
    if (axis + 1 < axes.size() && layout.axes[axis + 1] == role) at /= axes[axis + 1];
    if (axis > 0 && layout.axes[axis - 1] == role) at %= axes[axis];
    index.push_back(at);
  }
  return index;
}

// The sizes of a layer of a pool by the letters of its axes.
int64_t size_of(const Layout& layout, std::span<const int64_t> axes, char role) {
  int64_t size = 1;
  for (size_t axis = 0; axis < axes.size(); ++axis) {
    if (layout.axes[axis] == role) size *= axes[axis];
  }
  return size;
}

void clear_token(const Layout& layout, std::span<const int64_t> axes, int64_t bits, int64_t page,
                 int64_t token, int64_t layer_start, Bytes& pool) {
  Layout plain = layout;
  plain.is_interleaved = plain.is_side_by_side = false;
  if (num_elements(axes) == 0) return;
  for (int64_t head = 0; head < size_of(layout, axes, 'H'); ++head) {
    for (int64_t element = 0; element < size_of(layout, axes, 'D'); ++element) {
      const Index index = element_index(plain, axes, 0, page, token, head, element);
      copy_element(bits, pool, layer_start + flat_index(index, axes), nullptr, 0);
    }
  }
}

void write_kv(const Call& call, Expected& expected) {
  const Layout& layout = layout_of(call);
  const Tensor &slots = call.operands[0], &layer = call.operands[1];
  const size_t batch_rank = layer.shape.size(), rank = layout.axes.size();
  const int64_t num_tokens = slots.shape.back();
  const auto axes_of = [&](size_t i) { return std::span(call.operands[2 + i].shape).last(rank); };
  const int64_t num_layers = flag(call, "layered") ? call.operands[2].shape[batch_rank] : 1;
  const int64_t page_size = size_of(layout, axes_of(0), 'T');
  const int64_t num_slots = size_of(layout, axes_of(0), 'P') * page_size;
  for (int64_t b = 0; b < num_elements(layer.shape); ++b) {
    const int64_t bound = is_good(id_at(layer, b), num_layers) ? num_slots : 0;
    int32_t num_dropped = 0;
    for (int64_t t = 0; t < num_tokens; ++t) {
      const int32_t slot = id_at(slots, b * num_tokens + t);
      num_dropped += is_bad(slot, bound);
      if (!is_good(slot, bound)) continue;
      const int64_t page = slot / page_size, token = slot % page_size;
      for (size_t stream = 0; stream < layout.num_streams(); ++stream) {
        const size_t pool = layout.is_separate ? stream : 0;
        const auto axes = axes_of(pool);
        const Tensor& rows = call.operands[2 + layout.num_pools() + stream];
        const int64_t bits = element_bits(rows.dtype), dim = rows.shape.back();
        const int64_t heads = layout.has_heads() ? rows.shape[rows.shape.size() - 2] : 1;
        const int64_t start = (b * num_layers + id_at(layer, b)) * num_elements(axes);
        Bytes& target = expected.results[1 + pool];
        if (layout.pads && stream == 0) {
          clear_token(layout, axes, bits, page, token, start, target);
        }
        for (int64_t head = 0; dim > 0 && head < heads; ++head) {
          for (int64_t element = 0; element < dim; ++element) {
            const Index to = element_index(layout, axes, stream, page, token, head, element);
            copy_element(bits, target, start + flat_index(to, axes), &rows.contents,
                         ((b * num_tokens + t) * heads + head) * dim + element);
          }
        }
      }
    }
    set_count(expected.results[0], b, num_dropped);
  }
}

// Fills in what the handler should have written. False if there is no loop for it.
bool fill(const Call& call, Expected& expected) {
  if (call.target == "write_kv") {
    write_kv(call, expected);
  } else if (call.target == "gather_pages") {
    gather(call, 0, 1, 0, expected);
  } else if (call.target == "gather_into") {
    gather(call, 0, 2, 0, expected);
  } else if (call.target == "gather_through") {
    gather(call, 0, 1, 1, expected);
  } else if (call.target == "scatter_pages") {
    scatter(call, expected);
  } else if (call.target == "copy_pages") {
    copy(call, expected);
  } else if (call.target == "pages_to_rows" || call.target == "rows_to_pages") {
    move(call, call.target == "pages_to_rows", expected);
  } else {
    return false;
  }
  return true;
}

// The operand whose bytes a result starts with, in memory of its own or not.
size_t origin(const Call& call, size_t result) {
  if (call.target == "write_kv" || call.target == "copy_pages" || call.target == "rows_to_pages") {
    return result == 0 ? kNoAlias : result + 1;
  }
  if (call.target == "pages_to_rows") return result == 0 ? kNoAlias : result;
  if (call.target == "scatter_pages" || call.target == "gather_through") {
    return result == 0 ? 0 : kNoAlias;
  }
  return kNoAlias;
}

}  // namespace

bool compare_with_model(const Call& call, const Outcome& outcome,
                        const std::function<void(const std::string&)>& fail) {
  Expected expected;
  for (size_t i = 0; i < call.results.size(); ++i) {
    const size_t from = origin(call, i);
    if (from != kNoAlias && from >= call.operands.size()) {
      fail("accepted results that no operand belongs to");
    }
    expected.results.push_back(from == kNoAlias ? call.results[i].contents
                                                : call.operands[from].contents);
  }
  try {
    if (!fill(call, expected)) return false;
  } catch (const std::logic_error& error) {
    fail(std::string("accepted a call that makes no sense: ") + error.what());
  }
  for (size_t i = 0; i < expected.results.size(); ++i) {
    if (outcome.results[i] != expected.results[i]) {
      fail("result " + std::to_string(i) + " is not what a loop makes");
    }
  }
  return true;
}

}  // namespace pagedkv::fuzz
