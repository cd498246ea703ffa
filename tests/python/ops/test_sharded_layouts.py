"""Every op and layout on a mesh of 8 devices gives what it gives on one, and moves no pool."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import ops_oracle as oracle
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from pagedkv import KVLayout
from pagedkv.ops import (
    QuantizedPages,
    copy_pages,
    gather_into,
    gather_pages,
    gather_through,
    move_pages,
    page_row_bytes,
    paged_attention,
    scatter_pages,
    write_kv,
)
from pagedkv.ops._quantized import of_scale_axes, scale_shape
from pagedkv.testing import assert_in_place

LAYERS, PAGES, PAGE_SIZE, HEADS, DIM = 2, 32, 8, 8, 128
NUM_SLOTS = PAGES * PAGE_SIZE
SLOTS = np.int32([3, NUM_SLOTS - 1, -1, 100, NUM_SLOTS, 0, -7])
PAGE_IDS = np.int32([5, -1, PAGES, 0, PAGES - 1, 17])
KINDS = pytest.mark.parametrize(
    "kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"]
)
ALL_LAYOUTS = pytest.mark.parametrize("layout", list(KVLayout), ids=lambda layout: layout.name)


def sharding(spec, kind=AxisType.Auto):
    return NamedSharding(jax.make_mesh((2, 4), ("dp", "tp"), axis_types=(kind,) * 2), spec)


def pool_spec(layout, over=("pages", "kv_heads")):
    """Pages over dp and heads over tp, behind the layer axis."""
    spec = [None] * len(layout.axes)
    for name, mesh_axis in (("pages", "dp"), ("kv_heads", "tp")):
        if name in layout.axes and name in over:
            spec[layout.axes.index(name)] = mesh_axis
    return P(None, *spec)


def make_pools(layout, dtype="bfloat16", num_pages=PAGES):
    rng = np.random.default_rng(0)
    shapes = layout.pool_shapes(
        num_pages=num_pages,
        page_size=PAGE_SIZE,
        num_kv_heads=1 if layout.is_latent else HEADS,
        head_dim=DIM,
        dtype_bits=jnp.finfo(dtype).bits,
    )
    return [oracle.random_array(rng, (LAYERS, *shape), dtype) for shape in shapes]


def make_rows(layout, dtype="bfloat16", heads=HEADS):
    rng = np.random.default_rng(1)
    shape = (len(SLOTS), DIM) if layout.is_latent else (len(SLOTS), heads, DIM)
    return [oracle.random_array(rng, shape, dtype) for _ in range(1 if layout.is_latent else 2)]


def place(arrays, spec, kind=AxisType.Auto):
    return [jax.device_put(array, sharding(spec, kind)) for array in arrays]


def assert_same(actual, expected):
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        oracle.assert_same(one, np.asarray(other))


def assert_no_collective_of_a_pool(function, *args, pools):
    """No result of a collective is as large as what one device has of the smallest pool."""
    program = function.lower(*args).compile().as_text()
    found = re.findall(r"= \w+\[([\d,]*)\]\S* (?:all-|collective|reduce-)", program)
    smallest = min(np.prod(pool.sharding.shard_shape(pool.shape)) for pool in pools)
    assert all(np.prod([int(n) for n in shape.split(",") if n]) < smallest for shape in found)


def write(layout):
    def function(pools, rows, slots):
        args = (pools[0], pools[1] if len(pools) > 1 else None)
        args += (rows[0], rows[1] if len(rows) > 1 else None)
        return write_kv(*args, slots, layer=1, layout=layout)

    return function


@KINDS
@ALL_LAYOUTS
def test_write_kv_in_every_layout(layout, kind):
    step = jax.jit(write(layout), donate_argnums=0)
    pools, rows = make_pools(layout), make_rows(layout)
    expected = jax.jit(write(layout))(pools, rows, SLOTS)
    placed = place(pools, pool_spec(layout), kind)
    assert_in_place(step, placed, rows, SLOTS, pools=placed)
    assert_no_collective_of_a_pool(step, placed, rows, SLOTS, pools=placed)
    actual = step(placed, rows, SLOTS)
    assert actual.key_pages.sharding.is_equivalent_to(
        sharding(pool_spec(layout), kind), actual.key_pages.ndim
    )
    assert_same(actual, expected)
    assert int(actual.num_dropped) == 2


@pytest.mark.parametrize("dtype", ["float32", "float8_e4m3fn"])
def test_fused_heads_lie_with_their_rows_whatever_the_pack(dtype):
    layout = KVLayout.FUSED_PACKED
    pools, rows = make_pools(layout, dtype), make_rows(layout, dtype)
    expected = jax.jit(write(layout))(pools, rows, SLOTS)
    actual = jax.jit(write(layout))(place(pools, pool_spec(layout)), rows, SLOTS)
    assert_same(actual, expected)


def test_heads_that_are_rounded_up_cannot_be_sharded():
    layout = KVLayout.FUSED_PACKED
    placed = place(make_pools(layout), pool_spec(layout))
    rows = make_rows(layout, heads=HEADS // 2)
    with pytest.raises(jax.errors.JaxRuntimeError, match="over pages, got padded_kv_heads over"):
        write(layout)(placed, rows, SLOTS)
    over_pages = place(make_pools(layout), pool_spec(layout, over=("pages",)))
    expected = write(layout)(make_pools(layout), rows, SLOTS)
    assert_same(jax.jit(write(layout))(over_pages, rows, SLOTS), expected)


@KINDS
@ALL_LAYOUTS
def test_gather_and_scatter_in_every_layout(layout, kind):
    pool = make_pools(layout)[0]
    (placed,) = place([pool], pool_spec(layout), kind)
    options = {"layer": 1, "layout": layout}
    gather = jax.jit(lambda *a: gather_pages(*a, **options))
    rows, num_dropped = gather(pool, PAGE_IDS)
    assert_no_collective_of_a_pool(gather, placed, PAGE_IDS, pools=[placed])
    assert_same(gather(placed, PAGE_IDS), (rows, num_dropped))

    scatter = jax.jit(lambda *a: scatter_pages(*a, **options), donate_argnums=0)
    new = np.asarray(rows)[::-1] + 1
    expected = jax.jit(lambda *a: scatter_pages(*a, **options))(pool, PAGE_IDS, new)
    assert_in_place(scatter, placed, PAGE_IDS, new, pools=[placed])
    assert_same(scatter(placed, PAGE_IDS, new), expected)


@KINDS
def test_gather_into_and_through(kind):
    layout = KVLayout.HND
    pool = make_pools(layout)[0]
    (placed,) = place([pool], pool_spec(layout), kind)
    expected = gather_pages(pool, PAGE_IDS, layer=1, layout=layout)
    into = jax.jit(lambda *a: gather_into(*a, layer=1, layout=layout), donate_argnums=2)
    (rows,) = place([np.ones_like(expected.rows)], P(None, "tp"), kind)
    assert_same(into(placed, PAGE_IDS, rows), expected)
    assert rows.is_deleted()

    def read_then_write(pool, ids, new):
        pool, rows, _ = gather_through(pool, ids, layer=1, layout=layout)
        return scatter_pages(pool, ids, new, layer=1, layout=layout).pages, rows

    step = jax.jit(read_then_write, donate_argnums=0)
    new = np.asarray(expected.rows)[::-1]
    written = scatter_pages(pool, PAGE_IDS, new, layer=1, layout=layout).pages
    assert_in_place(step, placed, PAGE_IDS, new, pools=[placed])
    assert_same(step(placed, PAGE_IDS, new), (written, expected.rows))


# The first two of one device each, then padding, a pair of two devices, one out of range, and both.
SOURCES = np.int32([1, 20, -1, 3, 5, -9, PAGES])
TARGETS = np.int32([2, 31, 7, 30, PAGES, 18, 18])


@KINDS
@pytest.mark.parametrize("layout", [KVLayout.NHD, KVLayout.HEADS_FIRST, KVLayout.FUSED_PACKED])
def test_copy_pages_of_one_device_each(layout, kind):
    pools = [*make_pools(layout)[:1], make_pools(layout)[0].astype(np.float32)]
    copy = jax.jit(
        lambda pools, *ids: copy_pages(pools, *ids, layout=layout, stacked=True), donate_argnums=0
    )
    first = place(pools[:1], pool_spec(layout), kind)
    placed = first + place(pools[1:], pool_spec(layout, over=("pages",)), kind)
    assert_in_place(copy, placed, SOURCES, TARGETS, pools=placed)
    actual = copy(placed, SOURCES, TARGETS)
    axis = 1 + layout.page_axis
    for pool, wanted in zip(actual.pools, pools, strict=True):
        expected = np.moveaxis(wanted.copy(), axis, 0)
        expected[2], expected[31] = expected[1], expected[20]
        oracle.assert_same(pool, np.moveaxis(expected, 0, axis))
    counts = {int(shard.data) for shard in actual.num_dropped.addressable_shards}
    assert counts == {4}


def test_copy_pages_may_be_sharded_over_any_other_axis():
    pool = make_pools(KVLayout.NHD)[0]
    (placed,) = place([pool], P("dp", None, None, None, "tp"))
    copy = jax.jit(lambda *a: copy_pages(*a, stacked=True), donate_argnums=0)
    assert_in_place(copy, [placed], SOURCES, TARGETS, pools=[placed])
    expected = copy_pages([pool], SOURCES, TARGETS, stacked=True)
    assert_same(copy([placed], SOURCES, TARGETS), expected)


@KINDS
def test_move_pages_of_pages_that_are_sharded(kind):
    pools = make_pools(KVLayout.NHD, num_pages=16 * PAGES)  # larger than the rows
    placed = place(pools, P(None, ("dp", "tp")), kind)
    rows = np.zeros((len(PAGE_IDS), page_row_bytes(pools, stacked=True)), np.uint8)
    for to in ("rows", "pages"):
        move = jax.jit(lambda *a, to=to: move_pages(*a, to=to, stacked=True), donate_argnums=0)
        expected = move_pages(pools, PAGE_IDS, rows, to=to, stacked=True)
        assert_in_place(move, placed, PAGE_IDS, rows, pools=placed)
        actual = move(placed, PAGE_IDS, rows)
        assert_same(actual, expected)
        placed, pools = actual.pools, expected.pools
        rows = np.asarray(expected.rows)[::-1].copy()


def test_move_pages_refuses_heads_that_are_sharded():
    pools = make_pools(KVLayout.NHD)
    placed = place(pools, P(None, None, None, "tp"), AxisType.Explicit)
    rows = np.zeros((len(PAGE_IDS), page_row_bytes(pools, stacked=True)), np.uint8)
    text = r"\[move_pages\] pools\[0\] may be sharded over pages, got axis3 over 'tp'"
    with pytest.raises(ValueError, match=text):
        move_pages(placed, PAGE_IDS, rows, to="rows", stacked=True)


@KINDS
@pytest.mark.parametrize("granularity", ["token", "page", "static"])
@pytest.mark.parametrize(
    "layout", [KVLayout.NHD, KVLayout.HEADS_FIRST, KVLayout.SIDE_BY_SIDE], ids=lambda x: x.name
)
def test_quantized_pools_with_scales_that_lie_with_them(layout, granularity, kind):
    heads = 16  # int8 packs 4 of them
    dim = DIM // (1 + (layout is KVLayout.SIDE_BY_SIDE))
    shapes = layout.pool_shapes(
        num_pages=PAGES, page_size=PAGE_SIZE, num_kv_heads=heads, head_dim=dim, dtype_bits=8
    )
    pools = [
        QuantizedPages.zeros((LAYERS, *shape), jnp.int8, granularity=granularity, layout=layout)
        for shape in shapes
    ]
    rng = np.random.default_rng(1)
    rows = [rng.standard_normal((len(SLOTS), heads, dim), np.float32) for _ in range(2)]
    spec = pool_spec(layout)
    kept = [
        axis
        for name, axis in zip(("layers", *layout.axes), (*spec, None), strict=False)
        if name in ("layers", "kv_heads")
        or (name == "pages" and granularity != "static")
        or (name == "page_size" and granularity == "token")
    ]

    def put(pool):
        pages, scales = place([pool.pages], spec, kind) + place([pool.scales], P(*kept), kind)
        return QuantizedPages(pages, scales)

    expected = jax.jit(write(layout))(pools, rows, SLOTS)
    step = jax.jit(write(layout), donate_argnums=0)
    placed = [put(pool) for pool in pools]
    assert_in_place(step, placed, rows, SLOTS, pools=[pool.pages for pool in placed])
    actual = step(placed, rows, SLOTS)
    assert_same(actual, expected)
    gather = jax.jit(lambda *a: gather_pages(*a, layer=1, layout=layout))
    assert_same(gather(actual.key_pages, PAGE_IDS), gather(expected.key_pages, PAGE_IDS))


@KINDS
@ALL_LAYOUTS
@pytest.mark.parametrize("is_quantized", [False, True], ids=["bf16", "int8"])
def test_attention_over_heads_gives_what_it_gives_on_one_device(layout, kind, is_quantized):
    """To the last bit. In a latent layout every device has the whole pool."""
    rng = np.random.default_rng(0)
    pools = make_pools(layout, num_pages=8)
    spec = pool_spec(layout, over=("kv_heads",))
    placed = place(pools, spec, kind)
    if is_quantized:
        pools = [pool.astype(np.int8) for pool in pools]
        shapes = [scale_shape(layout, pool.shape[1:], "token") for pool in pools]
        scales = [rng.random((LAYERS, *shape), np.float32) for shape in shapes]
        kept = of_scale_axes(
            layout, (*spec, *[None] * len(layout.axes))[1:][: len(layout.axes)], "token"
        )
        placed = [
            QuantizedPages(*pair)
            for pair in zip(
                place(pools, spec, kind), place(scales, P(None, *kept), kind), strict=True
            )
        ]
        pools = [QuantizedPages(*pair) for pair in zip(pools, scales, strict=True)]
    query = rng.standard_normal((5, 2 * HEADS, DIM)).astype(np.float32)
    sinks = rng.standard_normal(2 * HEADS).astype(np.float32)
    batch = np.int32([[1, 4, 0], [6, 5, 2]]), np.int32([0, 3, 4]), np.int32([13, 20])

    def attend(query, pools, sinks):
        return paged_attention(
            *(query, *[*pools, None][:2], *batch), layer=1, layout=layout, sinks=sinks
        )

    expected = attend(query, pools, sinks)
    heads = P() if layout.is_latent else P(None, "tp")
    (rows,) = place([query], heads, kind)
    actual = jax.jit(attend)(rows, placed, sinks)
    np.testing.assert_array_equal(actual.output, expected.output)
    assert np.asarray(expected.output)[:4].any()
    assert int(actual.num_dropped) == 0
    compiled = jax.jit(attend).lower(rows, placed, sinks).compile().as_text()
    assert not re.search(r"all-(gather|reduce|to-all)", compiled)
