// What the kernels for CUDA do, as loops on the host, against naive loops.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <set>
#include <vector>

#include "cuda/batch_map.h"
#include "cuda/page_pairs.h"
#include "cuda/page_runs.h"
#include "cuda/units.h"
#include "cuda/write_rows.h"
#include "gtest/gtest.h"
#include "host_launch.h"
#include "random.h"

namespace pagedkv::cuda {
namespace {

using Bytes = std::vector<std::byte>;

class Draws {
 public:
  explicit Draws(uint64_t seed) : random_(static_cast<unsigned>(seed)) {}

  int64_t between(int64_t low, int64_t high) { return low + random_.below(high - low + 1); }
  Bytes bytes(int64_t size) {
    Bytes result(static_cast<size_t>(size));
    for (std::byte& byte : result) byte = static_cast<std::byte>(random_.below(256));
    return result;
  }
  // Good ones, equal ones, padding, and those out of range.
  std::vector<int32_t> ids(int64_t size, int64_t bound) {
    std::vector<int32_t> result;
    for (int64_t i = 0; i < size; ++i) {
      const int32_t bad[] = {-1, -2, static_cast<int32_t>(bound), INT32_MAX, INT32_MIN};
      const int64_t kind = between(0, 9);
      result.push_back(kind < 5 && kind != between(0, 9) && bound > 0
                           ? static_cast<int32_t>(between(0, bound - 1))
                           : bad[between(0, 4)]);
    }
    return result;
  }

 private:
  Random random_;
};

bool is_good(int32_t id, int64_t bound) { return id >= 0 && id < bound; }
bool is_dropped(int32_t id, int64_t bound) { return id != -1 && !is_good(id, bound); }

TEST(UnitsTest, AUnitDividesAll) {
  EXPECT_EQ(unit_bytes({}), 16);
  EXPECT_EQ(unit_bytes({0, 64, 256}), 16);
  EXPECT_EQ(unit_bytes({64, 8}), 8);
  EXPECT_EQ(unit_bytes({16, 12}), 4);
  EXPECT_EQ(unit_bytes({2, 48}), 2);
  EXPECT_EQ(unit_bytes({16, 7}), 1);
}

TEST(UnitsTest, DividesInBothWidths) {
  for (const int64_t a : {int64_t{0}, int64_t{7}, int64_t{0xffffffff}, int64_t{1} << 40}) {
    for (const int64_t b : {int64_t{1}, int64_t{3}, int64_t{0xffffffff}, int64_t{1} << 33}) {
      EXPECT_EQ(divide(a, b), a / b);
    }
  }
}

TEST(UnitsTest, AColumnOfManyPairsIsNarrow) {
  EXPECT_EQ(column_unit(16, 1), 16);
  EXPECT_EQ(column_unit(16, 96), 16);
  EXPECT_EQ(column_unit(16, 97), 8);
  EXPECT_EQ(column_unit(4, 97), 4);
  EXPECT_EQ(column_unit(16, 1536), 1);
  EXPECT_EQ(column_unit(16, kScratchBytes), 1);
  for (int64_t pairs = 1; pairs <= kScratchBytes; pairs += 17) {
    EXPECT_LE(pairs * column_unit(16, pairs), kScratchBytes) << pairs;
  }
}

TEST(BatchMapTest, AnAxisThatIsNotMappedIsShared) {
  BatchMap map;
  map.is_identity = false;
  map.rank = 3;
  const int64_t sizes[] = {2, 3, 4}, strides[] = {4, 0, 1};  // an operand of [2, 1, 4]
  std::ranges::copy(sizes, map.sizes);
  std::ranges::copy(strides, map.strides);
  for (int64_t i = 0; i < 2 * 3 * 4; ++i) {
    EXPECT_EQ(map(i), i / 12 * 4 + i % 4);
  }
}

TEST(HostLaunchTest, VisitsEachOnce) {
  for (const int64_t size : {1, 2, 3, 4, 12, 97, 100}) {
    std::multiset<int64_t> seen;
    for_each_scrambled(size, [&](int64_t i) { seen.insert(i); });
    EXPECT_EQ(static_cast<int64_t>(seen.size()), size);
    EXPECT_EQ(static_cast<int64_t>(std::set(seen.begin(), seen.end()).size()), size);
    EXPECT_EQ(*seen.begin(), 0);
    EXPECT_EQ(*seen.rbegin(), size - 1);
  }
}

// A pool `[batch, layers, pages, tokens, runs, elements]`, or with tokens behind elements, and
// rows.
TEST(WriteRowsTest, EqualsALoop) {
  for (uint64_t seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE(seed);
    Draws draws(seed);
    const int64_t batches = draws.between(1, 2), layers = draws.between(1, 3);
    const int64_t pages = draws.between(1, 4), page_size = draws.between(1, 5);
    const int64_t rows = draws.between(0, 12), runs = draws.between(1, 3);
    const int64_t element = int64_t{1} << draws.between(0, 4);
    const int64_t elements = draws.between(0, 300);
    const bool scattered = draws.between(0, 2) == 0,
               padded = !scattered && draws.between(0, 2) == 0;
    const int64_t run_bytes = element * elements;
    const int64_t room = padded ? runs * run_bytes + element : runs * run_bytes;
    const int64_t slots = pages * page_size, layer_bytes = slots * room;
    WriteRows kernel{};
    std::vector<Bytes> pools, new_rows;
    for (int32_t i = 0; i < 2; ++i) {
      pools.push_back(draws.bytes(batches * layers * layer_bytes));
      new_rows.push_back(draws.bytes(batches * rows * runs * run_bytes));
    }
    std::vector<Bytes> expected = pools;
    const std::vector<int32_t> slot_ids = draws.ids(batches * rows, slots);
    std::vector<int32_t> layer_ids;
    for (int64_t b = 0; b < batches; ++b) {
      layer_ids.push_back(
          static_cast<int32_t>(draws.between(0, 5) == 0 ? layers : draws.between(0, layers - 1)));
    }
    std::vector<int32_t> num_dropped(static_cast<size_t>(batches), 77);
    kernel.slots = slot_ids.data();
    kernel.layers = layer_ids.data();
    kernel.num_dropped = num_dropped.data();
    kernel.num_batches = batches;
    kernel.num_rows = rows;
    kernel.num_layers = layers;
    kernel.num_slots = slots;
    kernel.num_parts = padded ? 1 : draws.between(1, 5);
    kernel.padded_token_bytes = padded ? room : 0;
    kernel.padded_unit = 1;
    kernel.num_streams = padded ? 1 : 2;
    for (size_t i = 0; i < 2; ++i) {
      // Scattered: an element of each token of the page in turn.
      const RowGeometry geometry{.first = 0,
                                 .page_stride = page_size * room,
                                 .token_stride = scattered ? element : room,
                                 .num_runs = runs,
                                 .run_bytes = run_bytes,
                                 .run_stride = scattered ? run_bytes * page_size : run_bytes,
                                 .element_bytes = element,
                                 .element_stride = scattered ? element * page_size : element,
                                 .page_size = page_size};
      const int64_t unit = scattered ? element : unit_bytes({run_bytes, room});
      kernel.streams[i] = {.pool = pools[i].data(),
                           .rows = new_rows[i].data(),
                           .layer_bytes = layer_bytes,
                           .geometry = geometry,
                           .unit = unit,
                           .unit_stride = scattered ? geometry.element_stride : unit,
                           .run_units = run_bytes / unit,
                           .row_units = runs * (run_bytes / unit)};
    }
    std::vector<int32_t> dropped;
    for (int64_t b = 0; b < batches; ++b) {
      const int32_t layer = layer_ids[static_cast<size_t>(b)];
      const int64_t bound = is_good(layer, layers) ? slots : 0;
      dropped.push_back(0);
      for (int64_t row = 0; row < rows; ++row) {
        const int32_t slot = slot_ids[static_cast<size_t>(b * rows + row)];
        dropped.back() += is_dropped(slot, bound);
        if (!is_good(slot, bound)) continue;
        const int64_t page = slot / page_size, token = slot % page_size;
        for (int32_t i = 0; i < kernel.num_streams; ++i) {
          std::byte* const start = expected[static_cast<size_t>(i)].data() +
                                   (b * layers + layer) * layer_bytes + page * page_size * room;
          const std::byte* const from =
              new_rows[static_cast<size_t>(i)].data() + (b * rows + row) * runs * run_bytes;
          if (padded) std::memset(start + token * room, 0, static_cast<size_t>(room));
          for (int64_t byte = 0; byte < runs * run_bytes; ++byte) {
            const int64_t at = byte / element, in_element = byte % element;
            const int64_t to =
                scattered ? (at * page_size + token) * element + in_element : token * room + byte;
            start[to] = from[byte];
          }
        }
      }
    }
    launch_on_host(kernel);
    EXPECT_EQ(pools, expected);
    EXPECT_EQ(num_dropped, dropped);
  }
}

// A pool `[batch, layers, outer, pages, run]` and rows of a page, which may have others beside it.
struct Pages {
  int64_t batches, layers, outer, pages, run, ids, before, after;

  explicit Pages(Draws& draws)
      : batches(draws.between(1, 2)),
        layers(draws.between(1, 3)),
        outer(draws.between(1, 3)),
        pages(draws.between(1, 5)),
        run(draws.between(0, 3) == 0 ? draws.between(0, 40) : 16 * draws.between(0, 40)),
        ids(draws.between(0, 12)),
        before(draws.between(0, 2) * 16),
        after(draws.between(0, 1) * 8) {}

  int64_t pool_bytes() const { return batches * layers * outer * pages * run; }
  int64_t row_bytes() const { return before + outer * run + after; }
  int64_t at(int64_t batch, int64_t layer, int64_t page, int64_t byte) const {
    return (((batch * layers + layer) * outer + byte / run) * pages + page) * run + byte % run;
  }
};

template <bool kToRows>
void expect_moves_as_a_loop(uint64_t seed) {
  Draws draws(seed);
  const Pages size(draws);
  Bytes pool = draws.bytes(size.pool_bytes());
  Bytes rows = draws.bytes(size.batches * size.ids * size.row_bytes());
  Bytes new_pool = pool, new_rows = rows;
  const std::vector<int32_t> ids = draws.ids(size.batches * size.ids, size.pages);
  const auto layer = static_cast<int32_t>(draws.between(0, size.layers));
  const std::vector<int32_t> layers(static_cast<size_t>(size.batches), layer);
  std::vector<int32_t> num_dropped(static_cast<size_t>(size.batches), 77);
  const int64_t unit = unit_bytes({size.run, size.row_bytes(), size.before});
  const MovePages<kToRows> kernel{.pages = {.pool = pool.data(),
                                            .num_layers = size.layers,
                                            .num_outer = size.outer,
                                            .num_pages = size.pages,
                                            .run_bytes = size.run,
                                            .unit = unit},
                                  .rows = rows.data(),
                                  .ids = ids.data(),
                                  .layers = layers.data(),
                                  .num_dropped = num_dropped.data(),
                                  .num_batches = size.batches,
                                  .num_ids = size.ids,
                                  .row_bytes = size.row_bytes(),
                                  .row_offset = size.before,
                                  .num_parts = draws.between(1, 4),
                                  .pool_of = {},
                                  .ids_of = {},
                                  .layer_of = {}};
  std::vector<int32_t> dropped;
  for (int64_t b = 0; b < size.batches; ++b) {
    const int64_t bound = is_good(layer, size.layers) ? size.pages : 0;
    dropped.push_back(0);
    for (int64_t i = 0; i < size.ids; ++i) {
      const int32_t id = ids[static_cast<size_t>(b * size.ids + i)];
      dropped.back() += is_dropped(id, bound);
      for (int64_t byte = 0; byte < size.outer * size.run; ++byte) {
        const auto in_row =
            static_cast<size_t>((b * size.ids + i) * size.row_bytes() + size.before + byte);
        if (kToRows) {
          new_rows[in_row] = is_good(id, bound)
                                 ? pool[static_cast<size_t>(size.at(b, layer, id, byte))]
                                 : std::byte{0};
        } else if (is_good(id, bound)) {
          new_pool[static_cast<size_t>(size.at(b, layer, id, byte))] = rows[in_row];
        }
      }
    }
  }
  launch_on_host(kernel);
  EXPECT_EQ(pool, new_pool);
  EXPECT_EQ(rows, new_rows);
  EXPECT_EQ(num_dropped, dropped);
}

TEST(MovePagesTest, ToRowsEqualsALoop) {
  for (uint64_t seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE(seed);
    expect_moves_as_a_loop<true>(seed);
  }
}

TEST(MovePagesTest, ToPagesEqualsALoop) {
  for (uint64_t seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE(seed);
    expect_moves_as_a_loop<false>(seed);
  }
}

TEST(CopyPairsTest, ReadsAllSourcesBeforeItWrites) {
  for (uint64_t seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE(seed);
    Draws draws(seed);
    Pages size(draws);
    size.layers = 1;
    Bytes pool = draws.bytes(size.pool_bytes());
    Bytes expected = pool;
    const std::vector<int32_t> sources = draws.ids(size.batches * size.ids, size.pages);
    const std::vector<int32_t> targets = draws.ids(size.batches * size.ids, size.pages);
    std::vector<int32_t> num_dropped(static_cast<size_t>(size.batches), 77), dropped;
    const PagePairs pairs{.sources = sources.data(),
                          .targets = targets.data(),
                          .num_pairs = size.ids,
                          .num_pages = size.pages};
    for (int64_t b = 0; b < size.batches; ++b) {
      dropped.push_back(0);
      for (int64_t i = 0; i < size.ids; ++i) {
        const auto at = static_cast<size_t>(b * size.ids + i);
        if (sources[at] == -1 || targets[at] == -1) continue;
        const bool exists = is_good(sources[at], size.pages) && is_good(targets[at], size.pages);
        dropped.back() += !exists;
        for (int64_t byte = 0; exists && byte < size.outer * size.run; ++byte) {
          expected[static_cast<size_t>(size.at(b, 0, targets[at], byte))] =
              pool[static_cast<size_t>(size.at(b, 0, sources[at], byte))];
        }
      }
    }
    launch_columns_on_host(CopyPairs{.pages = {.pool = pool.data(),
                                               .num_layers = 1,
                                               .num_outer = size.outer,
                                               .num_pages = size.pages,
                                               .run_bytes = size.run,
                                               .unit = unit_bytes({size.run})},
                                     .pairs = pairs,
                                     .num_batches = size.batches});
    launch_on_host(
        CountPairs{.pairs = pairs, .num_dropped = num_dropped.data(), .num_batches = size.batches});
    EXPECT_EQ(pool, expected);
    EXPECT_EQ(num_dropped, dropped);
  }
}

}  // namespace
}  // namespace pagedkv::cuda
