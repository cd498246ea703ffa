"""Quantised pools: the handlers against jnp bit for bit, and both against the bounds they promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from pagedkv import KVLayout
from pagedkv.ops import QuantizedPages, _reference, copy_pages, gather_pages, write_kv
from pagedkv.testing import assert_in_place

LAYERS, PAGES, PAGE_SIZE, HEADS, DIM = 2, 4, 8, 3, 16
DTYPES = ["int8", "float8_e4m3fn", "float8_e5m2", "int4"]
LARGEST = {"int8": 127, "float8_e4m3fn": 448, "float8_e5m2": 57344, "int4": 7}
SLOTS = np.int32([8, 9, 10, 3, -1, 99, 30, 11, 12])


def bits(dtype):
    return 4 if dtype == "int4" else 8


def make(layout, dtype, granularity, *, heads=HEADS, dim=DIM, scale=1.0):
    shapes = layout.pool_shapes(
        num_pages=PAGES,
        page_size=PAGE_SIZE,
        num_kv_heads=1 if layout.is_latent else heads,
        head_dim=dim,
        dtype_bits=bits(dtype),
    )
    pools = []
    for shape in shapes:
        pool = QuantizedPages.zeros((LAYERS, *shape), dtype, granularity=granularity, layout=layout)
        pools.append(pool._replace(scales=pool.scales * scale))
    return pools


def make_rows(layout, num_tokens, seed=0, dtype="float32", *, heads=HEADS, dim=DIM):
    """Each row of another size, so that scales of pages grow."""
    rng = np.random.default_rng(seed)
    shape = (num_tokens, dim) if layout.is_latent else (num_tokens, heads, dim)
    rows = []
    for _ in range(1 if layout.is_latent else 2):
        sizes = 10.0 ** rng.uniform(-2, 2, (*shape[:-1], 1))
        rows.append(jnp.asarray(rng.standard_normal(shape) * sizes).astype(dtype))
    return rows


def write(layout, pools, rows, slots, **kwargs):
    written = write_kv(*[*pools, None][:2], *[*rows, None][:2], slots, layout=layout, **kwargs)
    return [pool for pool in written[:2] if pool is not None], written.num_dropped


@functools.partial(jax.jit, static_argnames="layout")
def xla_write(layout, pools, rows, slots, layer):
    num_dropped, *new = _reference.write_kv_quantized(
        slots,
        layer,
        *[pool.pages for pool in pools],
        *[pool.scales for pool in pools],
        *rows,
        layout=layout,
        layered=True,
    )
    n = len(pools)
    return list(map(QuantizedPages, new[:n], new[n:])), num_dropped


# One program: eagerly, each operation in it is compiled apart.
xla_read = jax.jit(_reference.gather_dequantized, static_argnames=("layout", "layered", "dtype"))


def assert_same_bits(actual, expected):
    for new, wanted in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert new.dtype == wanted.dtype
        np.testing.assert_array_equal(
            np.asarray(new).astype(np.float32), np.asarray(wanted).astype(np.float32)
        )


CASES = [
    (layout, dtype, granularity)
    for layout in KVLayout
    for dtype in DTYPES
    for granularity in ("token", "page", "static")
    if not (layout is KVLayout.LATENT_TRANSPOSED and dtype == "int4")
    # All of NHD; of the others one dtype, and two that share elements or bytes in another way.
    and (
        layout is KVLayout.NHD
        or dtype == "float8_e4m3fn"
        or (dtype == "int4" and layout in (KVLayout.SIDE_BY_SIDE, KVLayout.FUSED_PACKED))
    )
]


@pytest.mark.parametrize(
    ("layout", "dtype", "granularity"), CASES, ids=lambda value: getattr(value, "name", value)
)
def test_equals_the_reference_bit_for_bit(layout, dtype, granularity):
    pools = make(layout, dtype, granularity, scale=0.25)
    rows = make_rows(layout, len(SLOTS))
    ids = np.int32([1, 0, -1, 3, PAGES])
    expected = xla_write(layout, pools, rows, SLOTS, jnp.int32(1))
    actual = write(layout, pools, rows, SLOTS, layer=1)
    assert int(actual[1]) == int(expected[1]) == 1
    assert_same_bits(actual[0], expected[0])
    for pool in actual[0]:
        read = gather_pages(pool, ids, layer=1, layout=layout, dtype="float32")
        reference = xla_read(
            *pool, ids, np.int32(1), layout=layout, layered=True, dtype=np.dtype("float32")
        )
        assert_same_bits(tuple(read), reference)
        assert int(read.num_dropped) == 1


@settings(max_examples=6, deadline=None)
@given(
    case=st.sampled_from(CASES),
    chunks=st.lists(st.sampled_from([1, 4, 9]), min_size=1, max_size=3),
    seed=st.integers(0, 999),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
)
def test_several_writes_equal_the_reference(case, chunks, seed, dtype):
    layout, code, granularity = case
    rng = np.random.default_rng(seed)
    actual = expected = make(layout, code, granularity, scale=0.5)
    for i, size in enumerate(chunks):
        slots = rng.integers(-2, PAGES * PAGE_SIZE + 2, size).astype(np.int32)
        rows = make_rows(layout, size, seed + i, dtype)
        actual, num_dropped = write(layout, actual, rows, slots, layer=0)
        expected, wanted = xla_write(layout, expected, rows, slots, jnp.int32(0))
        assert int(num_dropped) == int(wanted)
    assert_same_bits(actual, expected)


# The bounds that QuantizedPages states, for a page that is filled in order


def read_rows(pool, slots):
    """Rows of NHD as float32, by slot."""
    read = gather_pages(pool, np.arange(PAGES, dtype=np.int32), layer=0, dtype="float32").rows
    return np.asarray(read).reshape(PAGES * PAGE_SIZE, HEADS, DIM)[slots]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("granularity", ["token", "page", "static"])
def test_errors_are_within_the_bounds(dtype, granularity, seed):
    layout = KVLayout.NHD
    (key, value), slots = make_rows(layout, 24, seed), np.arange(24, dtype=np.int32)
    key = np.asarray(key, np.float64)
    pages = key.reshape(3, PAGE_SIZE, HEADS, DIM)
    most = {
        "token": np.abs(key).max(-1, keepdims=True),
        "page": np.repeat(np.abs(pages).max((1, 3), keepdims=True), PAGE_SIZE, 1).reshape(
            24, HEADS, 1
        ),
        "static": np.abs(key).max((0, 2), keepdims=True),
    }[granularity]
    scale = np.abs(key).max((0, 2)) / LARGEST[dtype] if granularity == "static" else 1.0
    pools = make(layout, dtype, granularity, scale=jnp.asarray(scale, jnp.float32))
    for chunk in (slots[:5], slots[5:7], slots[7:]):  # as chunks of a prompt, and decodes
        rows = [jnp.asarray(key, jnp.float32)[chunk], value[chunk]]
        pools, _ = write(layout, pools, rows, chunk, layer=0)
    error = np.abs(read_rows(pools[0], slots) - key)
    slack = 1 + 1e-5  # of float32
    if dtype.startswith("int"):
        bound = most / LARGEST[dtype] * (2 if granularity == "page" else 0.5)
    else:
        relative = {"float8_e4m3fn": 2.0**-4, "float8_e5m2": 2.0**-3}[dtype]
        below = 2.0**-16 if granularity == "page" else 2.0**-17
        bound = np.abs(key) * relative + most * below
    assert (error <= bound * slack).all(), (error / bound).max()
    assert error.max() > 0


def test_static_scales_saturate_and_stay():
    layout = KVLayout.NHD
    pools = make(layout, "int8", "static", scale=0.01)
    rows = [jnp.full([1, HEADS, DIM], 9.0), jnp.full([1, HEADS, DIM], -9.0)]
    new, _ = write(layout, pools, rows, np.int32([3]), layer=0)
    assert_same_bits(new[0].scales, pools[0].scales)
    np.testing.assert_allclose(read_rows(new[0], [3]), 1.27, rtol=1e-6)
    np.testing.assert_allclose(read_rows(new[1], [3]), -1.27, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("granularity", ["token", "page"])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_reads_as_nan_and_leaves_others_alone(dtype, granularity, bad):
    layout = KVLayout.NHD
    rows = make_rows(layout, 3)
    rows[0] = rows[0].at[1, 0, 2].set(bad)
    pools = make(layout, dtype, granularity)
    new, _ = write(layout, pools, rows, np.int32([8, 9, 16]), layer=0)
    new, _ = write(layout, new, [row[:1] for row in rows], np.int32([10]), layer=0)
    read = np.isnan(read_rows(new[0], [8, 9, 10, 16])).all(-1)
    head0 = [True, True, True, False] if granularity == "page" else [False, True, False, False]
    assert read[:, 0].tolist() == head0
    assert not read[:, 1:].any()
    again, _ = write(layout, new, [row[:1] for row in rows], np.int32([8]), layer=0)
    assert not np.isnan(read_rows(again[0], [8])).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_scale_below_zero_stays_until_the_page_begins_anew(dtype):
    """Not of our making, and twice as much of it would never be enough."""
    pools = make(KVLayout.NHD, dtype, "page", scale=0.0)
    pools = [pool._replace(scales=pool.scales - 0.5) for pool in pools]
    rows, slots = make_rows(KVLayout.NHD, 2), np.int32([1, PAGE_SIZE + 1])
    new, _ = write(KVLayout.NHD, pools, rows, slots, layer=0)
    expected, _ = xla_write(KVLayout.NHD, pools, rows, slots, jnp.int32(0))
    assert_same_bits(new, expected)
    assert (new[0].scales == -0.5).all()


def test_tiny_rows_read_as_zeros():
    rows = [jnp.full([1, HEADS, DIM], 1e-36)] * 2
    new, _ = write(KVLayout.NHD, make(KVLayout.NHD, "int8", "token"), rows, np.int32([3]), layer=0)
    assert not read_rows(new[0], [3]).any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("code", DTYPES)
def test_every_code_is_read_as_xla_reads_it(code, dtype):
    codes = np.arange(16 if code == "int4" else 256, dtype=np.uint8)
    codes = codes.astype(jnp.int4) if code == "int4" else codes.view(np.dtype(code))
    pool = QuantizedPages(
        jnp.asarray(codes.reshape(1, 1, 1, -1)), jnp.full([1, 1, 1], 0.75, jnp.float32)
    )
    read = gather_pages(pool, np.int32([0]), dtype=dtype).rows.ravel()
    wanted = (codes.astype(np.float32) * np.float32(0.75)).astype(np.dtype(dtype))
    assert read.dtype == wanted.dtype
    np.testing.assert_array_equal(np.asarray(read).astype("f"), wanted.astype("f"))


def test_every_float16_is_rounded_as_xla_rounds_it():
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    rows = jnp.asarray(halves[: halves.size // 16 * 16].reshape(-1, 1, 16))
    pool = QuantizedPages.zeros([rows.shape[0], 1, 1, 16], "float8_e5m2", granularity="static")
    slots = np.arange(rows.shape[0], dtype=np.int32)
    written = write_kv(pool, pool, rows, rows, slots).key_pages
    wanted = np.asarray(rows).astype(np.float32).clip(-57344, 57344).astype(pool.pages.dtype)
    assert np.asarray(written.pages).ravel().tobytes() == wanted.ravel().tobytes()


@pytest.mark.parametrize("granularity", ["token", "page", "static"])
def test_is_in_place_and_vmaps(granularity):
    layout = KVLayout.NHD
    pools = make(layout, "int8", granularity, dim=64)
    rows = make_rows(layout, len(SLOTS), dim=64)
    step = jax.jit(functools.partial(write, layout, layer=1), donate_argnums=0)
    big = jax.tree.map(lambda a: jnp.tile(a, (1, 40, *[1] * (a.ndim - 2))), pools)
    if granularity == "static":
        big = [pool._replace(scales=old.scales) for pool, old in zip(big, pools, strict=True)]
    assert_in_place(step, big, rows, SLOTS, pools=[pool.pages for pool in big])

    batch = jax.tree.map(lambda a: jnp.stack([a, a]), pools)
    slots = np.stack([SLOTS, SLOTS[::-1]])
    actual = jax.vmap(functools.partial(write, layout, rows=rows, layer=1))(batch, slots=slots)
    for b in range(2):
        expected = write(layout, pools, rows, slots[b], layer=1)
        assert_same_bits(jax.tree.map(lambda a, b=b: a[b], actual), expected)
    ids = np.int32([[1, 2], [3, 0]])
    read = jax.vmap(functools.partial(gather_pages, layer=1))(actual[0][0], ids)
    for b in range(2):
        one = jax.tree.map(lambda a, b=b: a[b], actual[0][0])
        assert_same_bits(read.rows[b], gather_pages(one, ids[b], layer=1).rows)
    shared = jax.vmap(lambda i: gather_pages(pools[0], i, layer=1).rows)(ids)
    assert_same_bits(shared[1], gather_pages(pools[0], ids[1], layer=1).rows)


def test_many_rows_and_threads_equal_one_row_after_the_other():
    layout, rng = KVLayout.NHD, np.random.default_rng(0)
    rows = [jnp.asarray(rng.standard_normal((9000, 1, 64)), jnp.float32) for _ in range(2)]
    slots = rng.permutation(10000)[:9000].astype(np.int32)
    for granularity in ("token", "page"):
        pool = QuantizedPages.zeros([1250, 8, 1, 64], "int8", granularity=granularity)
        whole = write_kv(pool, pool, *rows, slots)  # above the size for several threads
        parts = (pool, pool)
        for i in range(0, 9000, 1000):
            part = [row[i : i + 1000] for row in rows]
            parts = write_kv(*parts[:2], *part, slots[i : i + 1000], layout=layout)
        assert_same_bits(whole[:2], parts[:2])


@pytest.mark.parametrize("granularity", ["token", "page", "static"])
@pytest.mark.parametrize("layout", [KVLayout.NHD, KVLayout.HEADS_FIRST, KVLayout.SIDE_BY_SIDE])
def test_zeros_on_a_mesh_are_written_in_place_there(layout, granularity):
    mesh = jax.make_mesh((2, 2), ("dp", "tp"), axis_types=(AxisType.Auto,) * 2)
    names = [None, *[{"pages": "dp", "kv_heads": "tp"}.get(name) for name in layout.axes]]
    names = [name if name not in names[:i] else None for i, name in enumerate(names)]
    sharding = NamedSharding(mesh, PartitionSpec(*names))
    shapes = layout.pool_shapes(
        num_pages=64, page_size=8, num_kv_heads=8, head_dim=64, dtype_bits=8
    )
    pools = [
        QuantizedPages.zeros(
            (2, *shape), "int8", granularity=granularity, layout=layout, device=sharding
        )
        for shape in shapes
    ]
    rows = make_rows(layout, len(SLOTS), heads=8, dim=64)
    step = jax.jit(functools.partial(write, layout, layer=1), donate_argnums=0)
    assert_in_place(step, pools, rows, SLOTS, pools=[pool.pages for pool in pools])
    alone = [jax.tree.map(lambda a: jnp.zeros_like(a, device=jax.devices()[0]), p) for p in pools]
    if granularity == "static":
        alone = [pool._replace(scales=pool.scales + 1) for pool in alone]
    expected, _ = write(layout, alone, rows, SLOTS, layer=1)
    assert_same_bits(step(pools, rows, SLOTS)[0], expected)


def test_copies_take_the_scales_along():
    layout = KVLayout.NHD
    new, _ = write(layout, make(layout, "int8", "page"), make_rows(layout, 9), SLOTS, layer=1)
    copied = copy_pages(new, np.int32([1]), np.int32([2]), stacked=True).pools
    assert isinstance(copied[0], QuantizedPages)
    read = gather_pages(copied[0], np.int32([1, 2]), layer=1).rows
    assert_same_bits(read[0], read[1])
    assert np.asarray(read[0]).any()


POOL = QuantizedPages.zeros([4, 2, 1, 2], "int8")
ROW = np.zeros((1, 1, 2), np.float32)
SLOT = np.int32([0])
BAD_CALLS = {
    "one pool quantised": (
        lambda: write_kv(POOL, POOL.pages, ROW, ROW, SLOT),
        TypeError,
        r"\[write_kv\] key_pages and value_pages must both be QuantizedPages, or neither",
    ),
    "rows of whole numbers": (
        lambda: write_kv(POOL, POOL, ROW.astype(np.int8), ROW, SLOT),
        TypeError,
        r"\[write_kv\] key must be one of float32, bfloat16, float16 to be quantised, got int8",
    ),
    "pages of floats": (
        lambda: write_kv(*[POOL._replace(pages=jnp.zeros([4, 2, 1, 2]))] * 2, ROW, ROW, SLOT),
        TypeError,
        r"\[write_kv\] key_pages.pages must be one of int8, .*float8_e5m2, got float32",
    ),
    "dtype of scales": (
        lambda: gather_pages(POOL._replace(scales=POOL.scales.astype(jnp.bfloat16)), SLOT),
        TypeError,
        r"\[gather_pages\] pages.scales must be float32, got bfloat16",
    ),
    "shape of scales": (
        lambda: gather_pages(POOL._replace(scales=POOL.scales[..., None]), SLOT),
        ValueError,
        (
            r"\[gather_pages\] pages.scales must have one of the shapes \[4, 2, 1\] \(token\), "
            r"\[4, 1\] \(page\), \[1\] \(static\), got \[4, 2, 1, 1\]"
        ),
    ),
    "dtype to read": (
        lambda: gather_pages(POOL, SLOT, dtype="int8"),
        TypeError,
        r"\[gather_pages\] dtype must be one of float32, bfloat16, float16, got int8",
    ),
    "dtype of a plain pool": (
        lambda: gather_pages(POOL.pages, SLOT, dtype="float32"),
        ValueError,
        r"\[gather_pages\] dtype is for QuantizedPages, got 'float32' for an array",
    ),
    "zeros of floats": (
        lambda: QuantizedPages.zeros([4, 2, 1, 2], "float32"),
        TypeError,
        r"\[QuantizedPages.zeros\] dtype must be one of int8, .* got float32",
    ),
    "zeros of another rank": (
        lambda: QuantizedPages.zeros([4, 2, 1], "int8"),
        ValueError,
        r"\[QuantizedPages.zeros\] shape must have 4 axes, or one more for layers, got \[4, 2, 1\]",
    ),
    "granularity": (
        lambda: QuantizedPages.zeros([4, 2, 1, 2], "int8", granularity="head"),
        ValueError,
        r"granularity must be 'token', 'page' or 'static', got 'head'",
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
            lambda: write_kv(POOL, POOL, ROW, ROW, np.int32([8]), mode="raise"),
            r"\[write_kv\] slot 8 at position 0 is out of range \[0, 8\)",
        ),
        (
            lambda: gather_pages(POOL, np.int32([4]), mode="raise"),
            r"\[gather_pages\] page 4 at position 0 is out of range \[0, 4\)",
        ),
    ],
)
def test_mode_raise_names_the_id(call, text):
    with pytest.raises(jax.errors.JaxRuntimeError, match=text):
        jax.block_until_ready(call())
