"""Every op on a GPU against the same op on the CPU, bit for bit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pagedkv import KVLayout
from pagedkv.ops import (
    QuantizedPages,
    copy_pages,
    gather_into,
    gather_pages,
    gather_through,
    move_pages,
    page_row_bytes,
    scatter_pages,
    write_kv,
)
from pagedkv.testing import assert_in_place

LAYERS, PAGES, PAGE_SIZE, HEADS, DIM = 2, 12, 8, 3, 40
NUM_SLOTS = PAGES * PAGE_SIZE
# Equal ones, whose last wins; padding; and out of range.
SLOTS = np.int32([5, 9, -1, 5, NUM_SLOTS, 0, 10, -2, NUM_SLOTS - 1, 2**31 - 1, -(2**31), 11, 9])
NUM_ROWS = len(SLOTS)
IDS = np.int32([3, -1, 0, PAGES, 3, -2, PAGES - 1, 2**31 - 1])
DTYPES = ["float32", "bfloat16", "int8", "float8_e4m3fn", "int4"]
CODES = ["int8", "int4", "float8_e4m3fn", "float8_e5m2"]


def layouts_and(dtypes):
    """Elements under a byte cannot lie apart."""
    return pytest.mark.parametrize(
        ("layout", "dtype"),
        [
            (layout, dtype)
            for layout in KVLayout
            for dtype in dtypes
            if not (layout is KVLayout.LATENT_TRANSPOSED and dtype == "int4")
        ],
        ids=lambda value: getattr(value, "name", value),
    )


def bits(dtype):
    return 4 if dtype == "int4" else 8 * jnp.dtype(dtype).itemsize


def random_array(rng, shape, dtype):
    if jnp.issubdtype(dtype, jnp.integer):
        return rng.integers(-8, 8, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def pool_shapes(layout, dtype):
    shapes = layout.pool_shapes(
        num_pages=PAGES,
        page_size=PAGE_SIZE,
        num_kv_heads=1 if layout.is_latent else HEADS,
        head_dim=DIM,
        dtype_bits=bits(dtype),
    )
    return [(LAYERS, *shape) for shape in shapes]


def make_pools(rng, layout, dtype):
    return [random_array(rng, shape, dtype) for shape in pool_shapes(layout, dtype)]


def make_rows(rng, layout, dtype, num_rows=NUM_ROWS):
    shape = (num_rows, DIM) if layout.is_latent else (num_rows, HEADS, DIM)
    return [random_array(rng, shape, dtype) for _ in range(1 if layout.is_latent else 2)]


def run(device, function, *arrays, donate=True):
    """Results in NumPy, from a program whose first argument is donated, or not."""
    arrays = jax.device_put(jax.tree.map(np.array, arrays), device)  # a copy, to be donated
    results = jax.jit(function, donate_argnums=0 if donate else ())(*arrays)
    return jax.tree.map(np.asarray, results)


def assert_same(actual, expected):
    for new, wanted in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert new.dtype == wanted.dtype
        assert new.shape == wanted.shape
        if new.dtype == jnp.int4:  # a byte each in NumPy
            new, wanted = new.astype(np.int8), wanted.astype(np.int8)
        assert new.tobytes() == wanted.tobytes()


def assert_same_on_both(gpu, function, *arrays, donate=True):
    cpu = jax.devices("cpu")[0]
    assert_same(*(run(device, function, *arrays, donate=donate) for device in (gpu, cpu)))


def write(layout, layer, pools, rows, slots):
    return write_kv(*[*pools, None][:2], *[*rows, None][:2], slots, layout=layout, layer=layer)


@layouts_and(DTYPES)
def test_write_kv(gpu, layout, dtype):
    rng = np.random.default_rng(0)
    pools, rows = make_pools(rng, layout, dtype), make_rows(rng, layout, dtype)
    for layer in (0, 1, jnp.int32(LAYERS)):
        assert_same_on_both(gpu, functools.partial(write, layout, layer), pools, rows, SLOTS)


@layouts_and(CODES)
@pytest.mark.parametrize("granularity", ["token", "page", "static"])
def test_write_kv_quantized(gpu, layout, dtype, granularity):
    rng = np.random.default_rng(1)
    pools = [
        QuantizedPages.zeros(shape, dtype, granularity=granularity, layout=layout)
        for shape in pool_shapes(layout, dtype)
    ]
    for floats in ("float32", "bfloat16", "float16"):
        rows = [
            (row * 10.0 ** rng.uniform(-4, 4, (*row.shape[:-1], 1))).astype(floats)
            for row in make_rows(rng, layout, "float32")
        ]
        # Numbers that a GPU and a CPU may well see differently.
        for i, value in enumerate([np.inf, np.nan, 1e-39, -0.0, 3e-34, 0.0]):
            rows[0][i].ravel()[:5] = value
        assert_same_on_both(gpu, functools.partial(write, layout, 1), pools, rows, SLOTS)
        written = run(gpu, functools.partial(write, layout, 1), pools, rows, SLOTS)
        pools = [pool for pool in written[:2] if pool is not None]
        for read_as in ("float32", "bfloat16", "float16"):
            read = functools.partial(gather_pages, layout=layout, layer=1, dtype=read_as)
            assert_same_on_both(gpu, read, pools[0], IDS, donate=False)


@layouts_and(DTYPES)
def test_page_ops(gpu, layout, dtype):
    rng = np.random.default_rng(2)
    pools = make_pools(rng, layout, dtype)
    page = jax.eval_shape(
        functools.partial(gather_pages, layout=layout, layer=0), pools[0], IDS
    ).rows.shape
    rows = random_array(rng, page, dtype)
    for layer in (1, jnp.int32(-1)):
        where = {"layout": layout, "layer": layer}
        read = functools.partial(gather_pages, **where)
        assert_same_on_both(gpu, read, pools[0], IDS, donate=False)
        assert_same_on_both(gpu, functools.partial(gather_through, **where), pools[0], IDS)
        assert_same_on_both(
            gpu, lambda into, pool, w=where: gather_into(pool, IDS, into, **w), rows, pools[0]
        )
        assert_same_on_both(
            gpu, lambda pool, new, w=where: scatter_pages(pool, IDS, new, **w), pools[0], rows
        )
    stacked = {"layout": layout, "stacked": True}
    copy = functools.partial(copy_pages, **stacked)
    assert_same_on_both(gpu, copy, pools, np.int32([1, 2, -1, 5, 5]), np.int32([2, 1, 3, 7, 99]))
    assert_same_on_both(gpu, copy, pools, np.int32([1, 2, 3]), np.int32([4, 4, 1]))
    moved = random_array(rng, (len(IDS), page_row_bytes(pools, **stacked)), "uint8")
    for to in ("rows", "pages"):
        move = functools.partial(move_pages, to=to, **stacked)
        assert_same_on_both(gpu, lambda pools, new, m=move: m(pools, IDS, new), pools, moved)


@pytest.mark.parametrize("num_pairs", [1, 96, 97, 400, 2000])
def test_copies_many_pairs(gpu, num_pairs):
    rng = np.random.default_rng(num_pairs)
    pools = [random_array(rng, (500, 4, 2, 24), "bfloat16"), random_array(rng, (500, 3), "float32")]
    pools[1] = pools[1].reshape(500, 1, 1, 3)
    ids = rng.integers(-1, 502, (2, num_pairs)).astype(np.int32)
    assert_same_on_both(gpu, copy_pages, pools, *ids)


def test_refuses_more_pairs_than_a_block_can_hold(gpu):
    ids = np.zeros(50_000, np.int32)
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"\[copy_pages\] copies at most 49152"):
        run(gpu, copy_pages, [np.zeros([4, 1, 1, 1], np.float32)], ids, ids)


@pytest.mark.parametrize("num_rows", [1, 33, 1000, 9000])
def test_the_last_of_equal_slots_wins(gpu, num_rows):
    rng = np.random.default_rng(num_rows)
    for layout in (KVLayout.NHD, KVLayout.HND, KVLayout.FUSED_PACKED):
        pools = make_pools(rng, layout, "bfloat16")
        rows = make_rows(rng, layout, "bfloat16", num_rows)
        slots = rng.integers(-1, NUM_SLOTS + 1, num_rows).astype(np.int32)
        assert_same_on_both(gpu, functools.partial(write, layout, 0), pools, rows, slots)


def test_vmap_reads_a_pool_that_is_not_mapped(gpu):
    rng = np.random.default_rng(3)
    pool = random_array(rng, (PAGES, PAGE_SIZE, HEADS, DIM), "bfloat16")
    ids = rng.integers(-1, PAGES + 1, (3, 2, 5)).astype(np.int32)
    read = jax.vmap(jax.vmap(gather_pages, in_axes=(None, 0)), in_axes=(None, 0))
    assert_same_on_both(gpu, read, pool, ids, donate=False)
    pools = [random_array(rng, (3, PAGES, PAGE_SIZE, HEADS, DIM), "bfloat16") for _ in range(2)]
    rows = [random_array(rng, (3, len(SLOTS), HEADS, DIM), "bfloat16") for _ in range(2)]
    slots = np.stack([SLOTS, SLOTS[::-1], SLOTS])
    assert_same_on_both(
        gpu, jax.vmap(lambda pools, rows, slots: write_kv(*pools, *rows, slots)), pools, rows, slots
    )


def test_a_program_is_replayed_with_other_ids(gpu):
    """A write and a read in one program, again and again: as a command buffer from the second on."""

    def step(pools, rows, slots):
        keys, values, num_dropped = write_kv(*pools, *rows, slots)
        keys, read, also_dropped = gather_through(keys, slots // PAGE_SIZE)
        return (keys, values), read, num_dropped + also_dropped

    rng = np.random.default_rng(4)
    start = [random_array(rng, (PAGES, PAGE_SIZE, HEADS, DIM), "bfloat16") for _ in range(2)]
    pools = {device: jax.device_put(start, device) for device in (gpu, jax.devices("cpu")[0])}
    step = jax.jit(step, donate_argnums=0)
    for _ in range(10):
        rows = [random_array(rng, (6, HEADS, DIM), "bfloat16") for _ in range(2)]
        slots = rng.integers(-2, NUM_SLOTS + 2, 6).astype(np.int32)
        results = []
        for device, before in pools.items():
            pools[device], *rest = step(before, *jax.device_put((rows, slots), device))
            results.append(jax.tree.map(np.asarray, (pools[device], rest)))
        assert_same(*results)


def test_stays_in_place(gpu):
    pools = jax.device_put([jnp.zeros([256, 16, 8, 128], jnp.bfloat16)] * 2, gpu)
    rows = jax.device_put([jnp.zeros([4, 8, 128], jnp.bfloat16)] * 2, gpu)
    slots = jax.device_put(jnp.int32([1, 2, 3, 4]), gpu)
    write = jax.jit(lambda pools, rows, slots: write_kv(*pools, *rows, slots)[:2], donate_argnums=0)
    assert_in_place(write, pools, rows, slots)
