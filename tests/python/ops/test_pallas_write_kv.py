"""write_kv's TPU kernels, interpreted: against a NumPy loop that spells out where a row lies."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import ops_oracle as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.pallas import tpu as pltpu
from pagedkv import KVLayout
from pagedkv.ops._pallas import _tiles, _tpu, _write_kv

LAYERS, PAGES, PAGE_SIZE = 2, 3, 16
NUM_SLOTS = PAGES * PAGE_SIZE
SLOTS = np.int32([5, -1, NUM_SLOTS, 0, -2, NUM_SLOTS - 1, 2**31 - 1, -(2**31), 4, 21, 5])
LAYOUTS = [layout for layout in KVLayout if layout is not KVLayout.LATENT_TRANSPOSED]
ALL = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
# One layout for each of the two kernels.
KERNELS = pytest.mark.parametrize(
    "layout", [KVLayout.NHD, KVLayout.HND], ids=lambda layout: layout.name
)
SIMULATED = pltpu.InterpretParams()


def make(layout, dtype="bfloat16", *, heads=4, dim=None, page_size=PAGE_SIZE, slots=SLOTS):
    """Stacked pools, and the rows of one layer."""
    rng = np.random.default_rng(0)
    heads = 1 if layout.is_latent else heads
    dim = dim or (64 if layout is KVLayout.SIDE_BY_SIDE else 128)
    shapes = layout.pool_shapes(
        num_pages=PAGES,
        page_size=page_size,
        num_kv_heads=heads,
        head_dim=dim,
        dtype_bits=8 * np.dtype(dtype).itemsize,
    )
    pools = [oracle.random_array(rng, (LAYERS, *shape), dtype) for shape in shapes]
    row = (dim,) if layout.is_latent else (heads, dim)
    num_rows = 1 if layout.is_latent else 2
    return pools, [oracle.random_array(rng, (len(slots), *row), dtype) for _ in range(num_rows)]


@functools.partial(jax.jit, static_argnames=("layout", "layered", "interpret"))
def write(slots, layer, *arrays, layout, layered=True, interpret=True):
    num_pools = 1 if layout.is_shared else 2
    assert _write_kv.serves(slots, arrays[:num_pools], layout)
    return _tpu.write_kv(slots, layer, *arrays, layout=layout, layered=layered, interpret=interpret)


def assert_writes(layout, pools, rows, slots=SLOTS, layer=1, **kwargs):
    num_dropped, *written = write(slots, np.int32(layer), *pools, *rows, layout=layout, **kwargs)
    expected = oracle.write_layout(layout, pools, rows, slots, layer)
    for pool, wanted in zip(written, expected[0], strict=True):
        oracle.assert_same(pool, wanted)
    assert int(num_dropped) == expected[1]


@ALL
@pytest.mark.parametrize(("dtype", "interpret"), [("bfloat16", True), ("float8_e4m3fn", SIMULATED)])
def test_equals_the_loop(layout, dtype, interpret):
    """In Pallas' interpreter, and in its simulator of a TPU."""
    assert_writes(layout, *make(layout, dtype), interpret=interpret)


@KERNELS
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_moves_bits_of_any_width(layout, dtype):
    assert_writes(layout, *make(layout, dtype))


@KERNELS
def test_writes_pools_without_layers(layout):
    pools, rows = make(layout)
    written = write(SLOTS, np.int32(0), *(p[1] for p in pools), *rows, layout=layout, layered=False)
    expected = oracle.write_layout(layout, pools, rows, SLOTS, 1)
    for pool, wanted in zip(written[1:], expected[0], strict=True):
        oracle.assert_same(pool, wanted[1])
    assert int(written[0]) == expected[1]


# More than one step of the grid, the last of which is not full.
MANY = 150


@functools.cache
def many(layout):
    return make(layout, slots=range(MANY))


@KERNELS
@settings(max_examples=10)
@given(slots=st.lists(st.integers(-2, NUM_SLOTS + 1), min_size=MANY, max_size=MANY))
def test_of_equal_slots_the_last_wins(layout, slots):
    assert_writes(layout, *many(layout), slots=np.int32(slots))


@KERNELS
def test_order_of_steps_holds_in_the_simulator(layout):
    slots = np.arange(MANY, dtype=np.int32) % 7
    assert_writes(layout, *many(layout), slots=slots, interpret=SIMULATED)


@KERNELS
@pytest.mark.parametrize("layer", [-1, 0, LAYERS, 2**31 - 1])
def test_a_layer_out_of_range_drops_all(layout, layer):
    assert_writes(layout, *make(layout), layer=layer)


@pytest.mark.parametrize(
    ("layout", "heads", "dim"),
    [
        (KVLayout.FUSED_PACKED, 3, 80),
        (KVLayout.SIDE_BY_SIDE, 3, 64),
        (KVLayout.LATENT_PACKED, 1, 200),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_what_a_pool_has_beyond_the_rows_becomes_zero(layout, heads, dim):
    assert_writes(layout, *make(layout, heads=heads, dim=dim))


@pytest.mark.parametrize("page_size", [8, 16, 24, 48])
def test_pages_may_be_smaller_than_a_tile_or_have_several(page_size):
    slots = np.int32([0, page_size - 1, page_size, 2 * page_size + 5, 3 * page_size, 5])
    assert_writes(KVLayout.HND, *make(KVLayout.HND, page_size=page_size, slots=slots), slots=slots)


def test_value_heads_may_have_another_size():
    pools, rows = make(KVLayout.NHD, dim=256)
    assert_writes(KVLayout.NHD, [pools[0][..., :128], pools[1]], [rows[0][..., :128], rows[1]])


@KERNELS
def test_a_batch_equals_its_elements(layout):
    pools, rows = make(layout)
    slots = np.stack([SLOTS, SLOTS[::-1]])
    batched = jax.vmap(
        functools.partial(write, layout=layout), in_axes=(0, None, *[None] * len(pools), 0, 0)
    )(slots, np.int32(1), *pools, *(np.stack([new, new + new]) for new in rows))
    for i, factor in enumerate((1, 2)):
        ours = [(new + new if factor == 2 else new) for new in rows]
        expected = oracle.write_layout(layout, pools, ours, slots[i], 1)
        assert int(batched[0][i]) == expected[1]
        for pool, wanted in zip(batched[1:], expected[0], strict=True):
            oracle.assert_same(pool[i], wanted)


SERVED = [((16, 8, 128), "float32"), ((16, 2, 128), "bfloat16"), ((16, 24, 256), "int8")]
NOT_SERVED = [
    ((16, 8, 64), "float32"),  # XLA puts the pages innermost
    ((16, 3, 128), "float32"),  # XLA swaps heads and tokens
    ((16, 1, 128), "bfloat16"),
    ((16, 12, 128), "int8"),
    ((16, 8, 128), "float16"),  # unknown to Pallas on TPUs
    ((0, 8, 128), "float32"),
]


@pytest.mark.parametrize(("page", "dtype"), SERVED + NOT_SERVED)
def test_takes_pools_that_are_row_major_in_whole_tiles(page, dtype):
    pool = jax.ShapeDtypeStruct((4, *page), dtype)
    assert _tiles.is_row_major(pool) == ((page, dtype) in SERVED)


def test_more_slots_than_scalar_memory_holds_are_not_served():
    pools, _ = make(KVLayout.NHD)
    assert _write_kv.serves(np.zeros(2**16, np.int32), pools, KVLayout.NHD)
    assert not _write_kv.serves(np.zeros(2**16 + 1, np.int32), pools, KVLayout.NHD)


def test_other_pools_are_written_by_the_reference():
    pools, rows = make(KVLayout.NHD, "float16", heads=3, dim=8)
    assert not _write_kv.serves(jnp.asarray(SLOTS), pools, KVLayout.NHD)
    slots = np.unique(SLOTS)
    rows = [new[: len(slots)] for new in rows]
    num_dropped, *written = _tpu.write_kv(
        slots, jnp.int32(1), *map(jnp.asarray, pools), *rows, layout=KVLayout.NHD, layered=True
    )
    expected = oracle.write_layout(KVLayout.NHD, pools, rows, slots, 1)
    for pool, wanted in zip(written, expected[0], strict=True):
        oracle.assert_same(pool, wanted)
    assert int(num_dropped) == expected[1]
