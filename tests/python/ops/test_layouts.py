"""Every layout: write_kv and the page ops against a NumPy loop that spells out where a row lies."""

import copy
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import ops_oracle as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pagedkv import KVLayout
from pagedkv.ops import (
    _reference,
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

LAYERS, PAGES, PAGE_SIZE, HEADS, DIM = 2, 5, 8, 3, 8
NUM_SLOTS = PAGES * PAGE_SIZE
SLOTS = np.int32([5, -1, NUM_SLOTS, 0, -2, NUM_SLOTS - 1, 2**31 - 1, -(2**31), 5])
ALL = pytest.mark.parametrize("layout", KVLayout, ids=lambda layout: layout.name)
# One dtype for each width: handlers move bytes. Elements under a byte cannot lie apart.
LAYOUT_DTYPES = [
    (layout, dtype)
    for layout in KVLayout
    for dtype in ("float32", "bfloat16", "float8_e4m3fn", "int4")
    if not (layout is KVLayout.LATENT_TRANSPOSED and dtype == "int4")
]
ALL_WITH_DTYPES = pytest.mark.parametrize(
    ("layout", "dtype"), LAYOUT_DTYPES, ids=lambda value: getattr(value, "name", value)
)


def bits(dtype):
    return 4 if dtype == "int4" else 8 * np.dtype(dtype).itemsize


def operands(layout, dtype="float32", *, heads=HEADS, dim=DIM, slots=SLOTS, seed=0):
    """Stacked pools, and the rows for one layer."""
    rng = np.random.default_rng(seed)
    shapes = layout.pool_shapes(
        num_pages=PAGES,
        page_size=PAGE_SIZE,
        num_kv_heads=1 if layout.is_latent else heads,
        head_dim=dim,
        dtype_bits=bits(dtype),
    )
    pools = [oracle.random_array(rng, (LAYERS, *shape), dtype) for shape in shapes]
    row = (dim,) if layout.is_latent else (heads, dim)
    num_rows = 1 if layout.is_latent else 2
    rows = [oracle.random_array(rng, (len(slots), *row), dtype) for _ in range(num_rows)]
    return pools, rows


def write(layout, pools, rows, slots, **kwargs):
    """Pools and rows as lists; those that a layout has not are None."""
    written = write_kv(*[*pools, None][:2], *[*rows, None][:2], slots, layout=layout, **kwargs)
    return [pool for pool in written[:2] if pool is not None], written.num_dropped


def xla_write(layout, pools, rows, slots, layer):
    num_dropped, *pools = _reference.write_kv(
        slots, jnp.int32(layer), *map(jnp.asarray, [*pools, *rows]), layout=layout, layered=True
    )
    return pools, num_dropped


def assert_written(actual, expected):
    for pool, wanted in zip(actual[0], expected[0], strict=True):
        oracle.assert_same(pool, wanted)
    assert int(actual[1]) == expected[1]


@ALL_WITH_DTYPES
def test_write_equals_the_loop(layout, dtype):
    pools, rows = operands(layout, dtype)
    expected = oracle.write_layout(layout, pools, rows, SLOTS, 1)
    assert expected[1] == 4
    assert_written(write(layout, pools, rows, SLOTS, layer=1), expected)


@ALL
def test_a_layout_may_be_given_by_name(layout):
    pools, rows = operands(layout)
    expected = oracle.write_layout(layout, pools, rows, SLOTS, 0)
    assert_written(write(layout.name, pools, rows, SLOTS, layer=0), expected)


@ALL
@pytest.mark.parametrize("layer", [1, LAYERS, -1])
def test_reference_equals_the_loop(layout, layer):
    # Of equal slots it is not defined which row wins, so there are none.
    pools, rows = operands(layout, "bfloat16")
    slots = np.concatenate([SLOTS[:-1], [-1]])
    expected = oracle.write_layout(layout, pools, rows, slots, layer)
    assert_written(xla_write(layout, pools, rows, slots, layer), expected)


@settings(max_examples=30, deadline=None)
@given(
    case=st.sampled_from(LAYOUT_DTYPES),
    heads=st.integers(1, 5),
    dim=st.sampled_from([2, 6, 64, 130]),
    slots=st.lists(st.integers(-2, NUM_SLOTS + 1), max_size=12),
    layer=st.integers(-1, LAYERS),
    seed=st.integers(0, 99),
)
def test_any_shape_equals_the_loop(case, heads, dim, slots, layer, seed):
    layout, dtype = case
    slots = np.array(slots, np.int32)
    pools, rows = operands(layout, dtype, heads=heads, dim=dim, slots=slots, seed=seed)
    actual = write(layout, pools, rows, slots, layer=jnp.int32(layer))
    assert_written(actual, oracle.write_layout(layout, pools, rows, slots, layer))


@pytest.mark.parametrize(
    ("dtype", "heads", "dim"), [("float32", 2, 128), ("bfloat16", 3, 80), ("int8", 1, 128)]
)
def test_fused_packed_is_what_the_tpu_kernels_merge(dtype, heads, dim):
    """K and V side by side, cut into 2 * heads, padded, packed: as tpu-inference v3 describes it."""
    layout = KVLayout.FUSED_PACKED
    pools, (key, value) = operands(layout, dtype, heads=heads, dim=dim, slots=np.arange(NUM_SLOTS))
    pack = 32 // bits(dtype)
    merged = np.concatenate([key, value], axis=-1).reshape(NUM_SLOTS, 2 * heads, dim)
    merged = np.pad(merged, ((0, 0), (0, -2 * heads % pack), (0, -dim % 128)))
    (written,), _ = write(
        layout, pools, [key, value], np.arange(NUM_SLOTS, dtype=np.int32), layer=0
    )
    assert np.asarray(written[0]).tobytes() == merged.tobytes()


@ALL
def test_write_is_in_place(layout):
    pools, rows = operands(layout, "bfloat16", dim=64)
    pools = [jnp.tile(pool, (1, *[4] * (pool.ndim - 2), 1)) for pool in pools]
    heads, dim = layout.room(pools[0].shape[1:])
    rows = [
        jnp.ones([len(SLOTS), dim] if layout.is_latent else [len(SLOTS), heads, dim], row.dtype)
        for row in rows
    ]
    step = jax.jit(functools.partial(write, layout, layer=1), donate_argnums=0)
    assert_in_place(step, pools, rows, SLOTS, pools=pools)


@ALL
def test_vmap_equals_a_loop_over_the_batch(layout):
    batches = [operands(layout, seed=seed) for seed in range(2)]
    pools, rows = jax.tree.map(lambda *arrays: np.stack(arrays), *batches)
    slots = np.stack([SLOTS, SLOTS[::-1]])
    actual = jax.vmap(functools.partial(write, layout, layer=1))(pools, rows, slots)
    for b, (one_pools, one_rows) in enumerate(batches):
        expected = oracle.write_layout(layout, one_pools, one_rows, slots[b], 1)
        assert_written(jax.tree.map(lambda array, b=b: array[b], actual), expected)


def test_many_rows_and_threads_keep_the_order_of_equal_slots():
    # Above the sizes from which rows are copied by several threads, past the cache.
    layout, rng = KVLayout.NHD, np.random.default_rng(0)
    tokens, heads, dim = 6000, 4, 128
    pools = [np.zeros((1, 40, 16, heads, dim), np.float32) for _ in range(2)]
    rows = [rng.standard_normal((tokens, heads, dim)).astype(np.float32) for _ in range(2)]
    slots = rng.integers(-3, 645, tokens).astype(np.int32)  # each about ten times
    expected = oracle.write_kv(*pools, *rows, slots, layer=0)
    actual, num_dropped = write(layout, pools, rows, slots, layer=0)
    oracle.assert_same(actual[0], expected[0])
    oracle.assert_same(actual[1], expected[1])
    assert int(num_dropped) == expected[2]


# The ops on whole pages


IDS = np.int32([3, -1, 0, PAGES, 4, -2, 2**31 - 1])


def loop_gather(pool, ids, axis):
    """Pages of a pool that may be stacked, zeros for an id out of range."""
    page_shape = pool.shape[:axis] + pool.shape[axis + 1 :]
    rows = np.zeros((len(ids), *page_shape), pool.dtype)
    for i, page in enumerate(map(int, ids)):
        if 0 <= page < pool.shape[axis]:
            rows[i] = np.moveaxis(pool, axis, 0)[page]
    return rows


def loop_scatter(pool, ids, rows, axis):
    pool = pool.copy()
    for i, page in enumerate(map(int, ids)):
        if 0 <= page < pool.shape[axis]:
            np.moveaxis(pool, axis, 0)[page] = rows[i]
    return pool


def num_bad(ids):
    return sum(page != -1 and not 0 <= page < PAGES for page in map(int, ids))


@ALL_WITH_DTYPES
def test_gather_and_scatter_equal_the_loop(layout, dtype):
    pool, axis = operands(layout, dtype)[0][0], layout.page_axis
    wanted = loop_gather(pool[1], IDS, axis)
    rows, num_dropped = gather_pages(pool, IDS, layer=1, layout=layout)
    oracle.assert_same(rows, wanted)
    assert int(num_dropped) == num_bad(IDS) == 3
    into = jax.jit(functools.partial(gather_into, layer=1, layout=layout), donate_argnums=2)
    oracle.assert_same(into(pool, IDS, jnp.ones(wanted.shape, dtype)).rows, wanted)
    through = gather_through(pool, IDS, layer=1, layout=layout)
    oracle.assert_same(through.rows, wanted)
    oracle.assert_same(through.pages, pool)
    assert int(through.num_dropped) == num_bad(IDS)

    new = oracle.random_array(np.random.default_rng(1), wanted.shape, dtype)
    expected = pool.copy()
    expected[1] = loop_scatter(pool[1], IDS, new, axis)
    scattered = scatter_pages(pool, IDS, new, layer=jnp.int32(1), layout=layout)
    oracle.assert_same(scattered.pages, expected)
    assert int(scattered.num_dropped) == num_bad(IDS)
    one = scatter_pages(pool[1], IDS, new, layout=layout.name)
    oracle.assert_same(one.pages, expected[1])


@ALL_WITH_DTYPES
@pytest.mark.parametrize("stacked", [False, True])
def test_copy_and_move_equal_the_loop(layout, dtype, stacked):
    pools = operands(layout, dtype)[0]
    pools = pools if stacked else [pool[0] for pool in pools]
    axis = layout.page_axis + stacked
    sources, targets = np.int32([1, 2, 3, -1, 4, 9]), np.int32([2, 1, 0, 3, -1, 0])
    kwargs = {"layout": layout, "stacked": stacked}
    copied, num_dropped = copy_pages(tuple(pools), sources, targets, **kwargs)
    assert isinstance(copied, tuple)
    assert int(num_dropped) == 1
    for pool, new in zip(pools, copied, strict=True):
        rows = loop_gather(pool, sources[:3], axis)  # all read before any is written
        oracle.assert_same(new, loop_scatter(pool, targets[:3], rows, axis))

    row_bytes = page_row_bytes(pools, **kwargs)
    new = jnp.full([len(IDS), row_bytes], 7, jnp.uint8)
    kept, rows, num_dropped = move_pages(pools, IDS, new, to="rows", **kwargs)
    assert int(num_dropped) == num_bad(IDS)
    parts = [np.asarray(jnp.asarray(loop_gather(pool, IDS, axis))) for pool in pools]
    oracle.assert_same(rows, np.concatenate([to_bytes(part) for part in parts], axis=1))
    for pool, same in zip(pools, kept, strict=True):
        oracle.assert_same(same, pool)
    empty = [jnp.zeros_like(pool) for pool in pools]
    moved, same, num_dropped = move_pages(empty, IDS, rows, to="pages", **kwargs)
    assert int(num_dropped) == num_bad(IDS)
    oracle.assert_same(same, np.asarray(rows))
    for pool, new, part in zip(empty, moved, parts, strict=True):
        oracle.assert_same(new, loop_scatter(np.asarray(pool), IDS, part, axis))


def to_bytes(rows):
    """The bytes that XLA keeps: two int4 in one, the first in the low bits."""
    flat = rows.reshape(len(rows), -1)
    if rows.dtype.name == "int4":
        halves = flat.astype(np.uint8) & 15
        return halves[:, ::2] | halves[:, 1::2] << 4
    return flat.view(np.uint8).reshape(len(rows), -1)


def compiled(reference, **kwargs):
    """One program: eagerly, each operation in it is compiled apart."""
    return jax.jit(functools.partial(reference, **kwargs))


@ALL
def test_page_references_equal_the_handlers(layout):
    pools = [jnp.asarray(pool) for pool in operands(layout, "bfloat16")[0]]
    for layered, pool in ((True, pools[0]), (False, pools[0][0])):
        layer = jnp.int32(1 if layered else 0)
        kwargs = {"layered": layered, "page_axis": layout.page_axis}
        arrays = gather_through(pool, IDS, layer=layer if layered else None, layout=layout)
        reference = compiled(_reference.gather_through, **kwargs)(pool, IDS, layer)
        jax.tree.map(oracle.assert_same, reference, tuple(map(np.asarray, arrays)))
        into = compiled(_reference.gather_into, **kwargs)(pool, arrays.rows, IDS, layer)
        oracle.assert_same(into[0], np.asarray(arrays.rows))
        new = jnp.flip(arrays.rows, 0)
        scattered = scatter_pages(pool, IDS, new, layer=layer if layered else None, layout=layout)
        reference = compiled(_reference.scatter_pages, **kwargs)(pool, new, IDS, layer)
        jax.tree.map(oracle.assert_same, reference, tuple(map(np.asarray, scattered)))
    axis = layout.page_axis + 1
    pairs = jnp.int32([1, 2, 3, -1, 9]), jnp.int32([2, 1, 0, 3, 0])
    copied = copy_pages(pools, *pairs, layout=layout, stacked=True)
    reference = compiled(_reference.copy_pages, page_axis=axis)(*pairs, *pools)
    jax.tree.map(oracle.assert_same, list(reference[1:]), list(map(np.asarray, copied.pools)))
    assert int(reference[0]) == int(copied.num_dropped) == 1
    rows = jnp.zeros([len(IDS), page_row_bytes(pools, layout=layout, stacked=True)], jnp.uint8)
    moved = move_pages(pools, IDS, rows, to="rows", layout=layout, stacked=True)
    reference = compiled(_reference.pages_to_rows, page_axis=axis)(IDS, rows, *pools)
    oracle.assert_same(reference[1], np.asarray(moved.rows))
    back = compiled(_reference.rows_to_pages, page_axis=axis)(IDS[::-1], moved.rows, *pools)
    wanted = move_pages(pools, IDS[::-1], moved.rows, to="pages", layout=layout, stacked=True)
    jax.tree.map(oracle.assert_same, list(back[1:]), list(map(np.asarray, wanted.pools)))
    assert int(reference[0]) == int(back[0]) == num_bad(IDS)


@ALL
def test_page_ops_are_in_place(layout):
    pools = operands(layout, "bfloat16", dim=64)[0]
    pools = [jnp.tile(pool, (1, *[4] * (pool.ndim - 2), 1)) for pool in pools]
    ids = np.int32([1, 2])
    rows = gather_pages(pools[0], ids, layer=0, layout=layout).rows
    row_bytes = page_row_bytes(pools, layout=layout, stacked=True)
    byte_rows = np.zeros((2, row_bytes), np.uint8)

    def read_then_write(pool):
        pool, rows, _ = gather_through(pool, ids, layer=0, layout=layout)
        return scatter_pages(pool, ids[::-1], rows, layer=1, layout=layout)

    kwargs = {"layout": layout, "stacked": True}
    for step, args in (
        (functools.partial(scatter_pages, layer=1, layout=layout), (pools[0], ids, rows)),
        (read_then_write, (pools[0],)),
        (functools.partial(copy_pages, **kwargs), (pools, ids, ids + 1)),
        (functools.partial(move_pages, to="rows", **kwargs), (pools, ids, byte_rows)),
        (functools.partial(move_pages, to="pages", **kwargs), (pools, ids, byte_rows)),
    ):
        assert_in_place(jax.jit(step, donate_argnums=0), *args, pools=args[0])


def test_gather_into_reuses_the_rows():
    pool = jnp.zeros([64, 16, 2, 8])
    rows = jnp.ones([4, 16, 2, 8])
    read = jax.jit(gather_into, donate_argnums=2)
    assert_in_place(read, pool, np.int32([1, 2, 3, 4]), rows, pools=rows)
    before = rows.unsafe_buffer_pointer()
    assert read(pool, np.int32([1, 2, 3, 4]), rows).rows.unsafe_buffer_pointer() == before


@ALL
def test_vmap_of_page_ops_equals_a_loop_over_the_batch(layout):
    pools = np.stack([operands(layout, seed=seed)[0][0] for seed in range(2)])
    ids = np.stack([IDS, IDS[::-1]])
    pairs = np.int32([[1, 2], [0, 3]]), np.int32([[2, 3], [4, 9]])

    @jax.jit
    def ops(pool, ids, sources, targets):
        through = gather_through(pool, ids, layer=1, layout=layout)
        into = gather_into(pool, ids, through.rows + 1, layer=1, layout=layout)
        scattered = scatter_pages(pool, ids, through.rows[::-1], layer=0, layout=layout)
        copied = copy_pages([pool], sources, targets, layout=layout, stacked=True)
        row_bytes = page_row_bytes([pool], layout=layout, stacked=True)
        moved = move_pages(
            [pool],
            ids,
            jnp.zeros([ids.shape[0], row_bytes], jnp.uint8),
            to="rows",
            layout=layout,
            stacked=True,
        )
        back = move_pages([pool], ids[::-1], moved.rows, to="pages", layout=layout, stacked=True)
        return through, into, scattered, copied, moved, back

    actual = jax.vmap(ops)(pools, ids, *pairs)
    for b in range(2):
        expected = ops(pools[b], ids[b], pairs[0][b], pairs[1][b])
        jax.tree.map(
            lambda new, wanted, b=b: oracle.assert_same(new[b], np.asarray(wanted)),
            actual,
            expected,
        )


def test_many_pages_and_threads_equal_the_loop():
    rng = np.random.default_rng(0)
    pool = rng.standard_normal((2, 300, 16, 4, 64)).astype(np.float32)  # 16 KiB a page
    ids = rng.integers(-2, 303, 900).astype(np.int32)
    rows = gather_pages(pool, ids, layer=1).rows
    oracle.assert_same(rows, loop_gather(pool[1], ids, 0))
    new = rng.standard_normal(rows.shape).astype(np.float32)
    scattered = scatter_pages(pool[0], ids, new)
    oracle.assert_same(scattered.pages, loop_scatter(pool[0], ids, new, 0))
    sources, targets = rng.permutation(300).astype(np.int32), np.arange(300, dtype=np.int32)
    copied = copy_pages([pool], sources, targets, stacked=True).pools[0]
    oracle.assert_same(copied, pool[:, sources])
    apart = copy_pages([pool], targets[:150], targets[150:], stacked=True).pools[0]
    oracle.assert_same(apart[:, 150:], pool[:, :150])


# Refusals


POOL = np.zeros((5, 4, 2, 8), np.float32)
ID = np.int32([1])
BAD_CALLS = {
    "layout": (
        lambda: gather_pages(POOL, ID, layout="NDH"),
        ValueError,
        r"\[gather_pages\] layout must be a KVLayout or its name, one of NHD, .*, got 'NDH'",
    ),
    "layout of another type": (
        lambda: write_kv(POOL, POOL, POOL[0], POOL[0], ID, layout=1),
        ValueError,
        r"\[write_kv\] layout must be a KVLayout or its name, .* got 1",
    ),
    "values in a fused layout": (
        lambda: write_kv(POOL, POOL, POOL[0], POOL[0], ID, layout="FUSED"),
        ValueError,
        r"\[write_kv\] value_pages must be None in layout FUSED",
    ),
    "value of a latent": (
        lambda: write_kv(POOL[0], None, POOL[0], POOL[0], ID, layout="LATENT"),
        ValueError,
        r"\[write_kv\] value must be None in layout LATENT",
    ),
    "no value": (
        lambda: write_kv(POOL, POOL, POOL[:1, 0], None, ID),
        TypeError,
        r"\[write_kv\] value must be an array, got NoneType",
    ),
    "too many heads to pad": (
        lambda: write_kv(
            np.zeros((5, 4, 1, 2, 128), jnp.bfloat16),
            None,
            np.zeros((1, 2, 128), jnp.bfloat16),
            np.zeros((1, 2, 128), jnp.bfloat16),
            ID,
            layout="FUSED_PACKED",
        ),
        ValueError,
        r"\[write_kv\] key must have shape \[1\] and then at most \[1, 128\], got \[1, 2, 128\]",
    ),
    "key unlike value in one pool": (
        lambda: write_kv(
            np.zeros((5, 4, 1, 2, 128), jnp.bfloat16),
            None,
            np.zeros((1, 1, 128), jnp.bfloat16),
            np.zeros((1, 1, 64), jnp.bfloat16),
            ID,
            layout="FUSED_PACKED",
        ),
        ValueError,
        r"\[write_kv\] value must have the shape \[1, 1, 128\] of key, got \[1, 1, 64\]",
    ),
    "int4 apart": (
        lambda: write_kv(
            np.zeros((5, 8, 4), jnp.int4),
            None,
            np.zeros((1, 8), jnp.int4),
            None,
            ID,
            layout="LATENT_TRANSPOSED",
        ),
        ValueError,
        r"\[write_kv\] a row \[1\] of key_pages must be whole bytes, got 4 bits of int4",
    ),
    "rows of another shape": (
        lambda: scatter_pages(POOL, ID, POOL[:2]),
        ValueError,
        r"\[scatter_pages\] rows must have shape \[1, 4, 2, 8\], got \[2, 4, 2, 8\]",
    ),
    "rows of another dtype": (
        lambda: gather_into(POOL, ID, POOL[:1].astype(np.int32)),
        TypeError,
        r"\[gather_into\] rows must be float32 as pages, got int32",
    ),
    "no pools": (
        lambda: copy_pages([], ID, ID),
        ValueError,
        r"\[copy_pages\] pools must hold an array, got none",
    ),
    "pools of other sizes": (
        lambda: copy_pages([POOL, POOL[:3]], ID, ID),
        ValueError,
        r"\[copy_pages\] pools\[1\] must have the 5 pages of the first on axis 0, got \[3, 4, 2, 8\]",
    ),
    "pool without pages": (
        lambda: copy_pages([np.zeros(3)], ID, ID, stacked=True),
        ValueError,
        r"\[copy_pages\] pools\[0\] must count pages on axis 1, got \[3\]",
    ),
    "packed pages": (
        lambda: copy_pages([np.zeros((3, 1), jnp.int4)], ID, ID),
        ValueError,
        r"\[copy_pages\] a page of pools\[0\] must be whole bytes, got 4 bits of int4",
    ),
    "list of pools as ids": (
        lambda: copy_pages(POOL, [1], ID),
        TypeError,
        r"\[copy_pages\] source_ids must be an array, got list",
    ),
    "uneven pairs": (
        lambda: copy_pages(POOL, ID, np.int32([1, 2])),
        ValueError,
        r"source_ids and target_ids must have one shape \[pairs\], got \[1\] and \[2\]",
    ),
    "direction": (
        lambda: move_pages(POOL, ID, POOL, to="disk"),
        ValueError,
        r"\[move_pages\] to must be 'rows' or 'pages', got 'disk'",
    ),
    "dtype of byte rows": (
        lambda: move_pages(POOL, ID, np.zeros((1, 256), np.int8), to="rows"),
        TypeError,
        r"\[move_pages\] rows must be uint8, got int8",
    ),
    "size of byte rows": (
        lambda: move_pages(POOL, ID, np.zeros((1, 255), np.uint8), to="rows"),
        ValueError,
        r"\[move_pages\] rows must have shape \[1, 256\], got \[1, 255\]",
    ),
    "two axes of ids": (
        lambda: move_pages(POOL, ID[None], np.zeros((1, 256), np.uint8), to="rows"),
        ValueError,
        r"\[move_pages\] page_ids must have shape \[n\], got \[1, 1\]",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_refuses_at_trace_time(name):
    call, error, text = BAD_CALLS[name]
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda ids: scatter_pages(POOL, ids, POOL[:2], mode="raise"),
            r"\[scatter_pages\] page 9 at position 1 is out of range \[0, 5\)",
        ),
        (
            lambda ids: gather_into(POOL, ids, POOL[:2], mode="raise"),
            r"\[gather_pages\] page 9 at position 1 is out of range \[0, 5\)",
        ),
        (
            lambda ids: copy_pages(POOL, ids, ids, mode="raise"),
            r"\[copy_pages\] page 9 at position 1 is out of range \[0, 5\)",
        ),
        (
            lambda ids: move_pages(
                POOL, ids, np.zeros((2, 256), np.uint8), to="pages", mode="raise"
            ),
            r"\[move_pages\] page 9 at position 1 is out of range \[0, 5\)",
        ),
    ],
)
def test_mode_raise_names_the_page(call, text):
    with pytest.raises(jax.errors.JaxRuntimeError, match=text):
        jax.block_until_ready(call(np.int32([-1, 9])))


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"layout": "FUSED", "value_dim": 4}, "FUSED has keys and values of one size, got 8 and 4"),
        ({"layout": "LATENT"}, "LATENT has 1 kv head, got 2"),
        (
            {"layout": "LATENT_PACKED", "num_kv_heads": 1, "page_size": 3},
            "LATENT_PACKED needs page_size in multiples of 2 for 16 bits, got 3",
        ),
    ],
)
def test_pool_shapes_refuses(kwargs, text):
    sizes = {"num_pages": 4, "page_size": 4, "num_kv_heads": 2, "head_dim": 8, "dtype_bits": 16}
    sizes |= kwargs
    with pytest.raises(ValueError, match=rf"\[KVLayout.pool_shapes\] {text}"):
        KVLayout[sizes.pop("layout")].pool_shapes(**sizes)


@ALL
def test_sizes_refuses_another_number_of_axes(layout):
    shape = [2] * (len(layout.axes) + 1)
    for sizes in (layout.sizes, layout.room):
        with pytest.raises(ValueError, match=rf"\[KVLayout.sizes\] shape must .* of {layout.name}"):
            sizes(shape)


def test_a_layout_is_one_object():
    for layout in KVLayout:
        assert pickle.loads(pickle.dumps(layout)) is layout
        assert copy.deepcopy(layout) is layout
        assert {layout: 1}[KVLayout[layout.name]] == 1
