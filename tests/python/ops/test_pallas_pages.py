"""The page ops' TPU kernels, interpreted: against NumPy's indexing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import ops_oracle as oracle
import pytest
from jax.experimental.pallas import tpu as pltpu
from pagedkv.ops import _reference
from pagedkv.ops._pallas import _pages, _tpu

LAYERS, PAGES, SHAPE = 2, 9, (16, 8, 128)
IDS = np.int32([3, -1, 0, PAGES, 5, -2, 2**31 - 1, -(2**31), PAGES - 1, 3])
VALID = (IDS >= 0) & (IDS < PAGES)
NUM_DROPPED = int(np.sum(~VALID & (IDS != -1)))
SIMULATED = pltpu.InterpretParams()
INTERPRETERS = pytest.mark.parametrize(
    "interpret", [True, SIMULATED], ids=["interpreted", "simulated"]
)
# The axis of the pages, behind the layers.
AXES = pytest.mark.parametrize("page_axis", [0, 1])


def make_pool(page_axis=0, dtype="bfloat16", layers=LAYERS, seed=0):
    """A stacked pool; with ``page_axis`` 1 an axis of 4 comes before its pages."""
    shape = (layers, PAGES, *SHAPE) if page_axis == 0 else (layers, 4, PAGES, *SHAPE[1:])
    return oracle.random_array(np.random.default_rng(seed), shape, dtype)


def pages_of(pool, layer, page_axis):
    """A layer's pages, ``[pages, *page]``, as a view."""
    return np.moveaxis(pool[layer], page_axis, 0)


def gathered(pool, ids, page_axis, layer=1):
    pages = pages_of(pool, layer, page_axis)
    valid = (ids >= 0) & (ids < PAGES)
    rows = pages[np.where(valid, ids, 0)].copy()
    rows[~valid] = 0
    return rows


def run(name, *operands, interpret=True, **kwargs):
    return jax.jit(functools.partial(getattr(_tpu, name), interpret=interpret, **kwargs))(*operands)


@pytest.fixture(autouse=True)
def kernels_only(monkeypatch):
    """No test here may pass by the reference's work alone."""
    used = []
    serves = _pages.serves
    monkeypatch.setattr(_pages, "serves", lambda *args: used.append(serves(*args)) or used[-1])
    yield
    assert any(used)


@AXES
@INTERPRETERS
@pytest.mark.parametrize("dtype", ["float32", "float8_e4m3fn"])
def test_gather_pages(page_axis, interpret, dtype):
    pool = make_pool(page_axis, dtype)
    ids = IDS.reshape(2, 5)
    rows, num_dropped = run(
        "gather_pages",
        pool,
        ids,
        np.int32(1),
        layered=True,
        page_axis=page_axis,
        interpret=interpret,
    )
    oracle.assert_same(rows, gathered(pool, ids, page_axis))
    assert int(num_dropped) == NUM_DROPPED


@INTERPRETERS
def test_gather_into_overwrites_all_of_the_rows(interpret):
    pool = make_pool()
    old = np.full((2, 5, *SHAPE), 7, pool.dtype)
    ids = IDS.reshape(2, 5)
    rows, num_dropped = run(
        "gather_into", pool, old, ids, np.int32(1), layered=True, page_axis=0, interpret=interpret
    )
    oracle.assert_same(rows, gathered(pool, ids, 0))
    assert int(num_dropped) == NUM_DROPPED


@AXES
def test_gather_through_returns_the_pool(page_axis):
    pool = make_pool(page_axis)
    after, rows, num_dropped = run(
        "gather_through", pool, IDS, np.int32(0), layered=True, page_axis=page_axis
    )
    oracle.assert_same(after, pool)
    oracle.assert_same(rows, gathered(pool, IDS, page_axis, layer=0))
    assert int(num_dropped) == NUM_DROPPED


@pytest.mark.parametrize("layer", [-1, LAYERS])
def test_a_layer_out_of_range_has_no_pages(layer):
    pool = make_pool()
    rows, num_dropped = run("gather_pages", pool, IDS, np.int32(layer), layered=True, page_axis=0)
    assert not np.asarray(rows).any()
    assert int(num_dropped) == np.sum(IDS != -1)


@AXES
@INTERPRETERS
def test_scatter_pages_in_order(page_axis, interpret):
    pool = make_pool(page_axis)
    rows = gathered(make_pool(page_axis, seed=1), np.arange(len(IDS)), page_axis)
    expected = pool.copy()
    for i in np.flatnonzero(VALID):
        pages_of(expected, 1, page_axis)[IDS[i]] = rows[i]
    written, num_dropped = run(
        "scatter_pages",
        *(pool, rows, IDS, np.int32(1)),
        layered=True,
        page_axis=page_axis,
        interpret=interpret,
    )
    oracle.assert_same(written, expected)
    assert int(num_dropped) == NUM_DROPPED


@AXES
@INTERPRETERS
def test_copy_pages_reads_all_before_it_writes(page_axis, interpret):
    pools = [make_pool(page_axis, seed=seed) for seed in range(2)]
    sources = np.int32([1, 2, 3, 4, PAGES, -1, 5, -2])
    targets = np.int32([2, 1, 4, 4, 0, 0, -1, 6])  # a swap, a chain, one target twice
    num_dropped, *copied = run(
        "copy_pages", sources, targets, *pools, page_axis=page_axis + 1, interpret=interpret
    )
    for pool, after in zip(pools, copied, strict=True):
        expected = pool.copy()
        for layer in range(LAYERS):
            for source, target in zip(sources[:4], targets[:4], strict=True):
                old, new = (pages_of(p, layer, page_axis) for p in (pool, expected))
                new[target] = old[source]
        oracle.assert_same(after, expected)
    assert int(num_dropped) == 2


def test_copy_pages_of_a_pool_and_of_scales_that_no_kernel_serves():
    pool, scales = make_pool(), np.arange(LAYERS * PAGES * 4.0, dtype=np.float32)
    scales = scales.reshape(LAYERS, PAGES, 4)
    num_dropped, *copied = run(
        "copy_pages", np.int32([1, 7]), np.int32([2, 99]), scales, pool, page_axis=1
    )
    for before, after in zip((scales, pool), copied, strict=True):
        expected = before.copy()
        expected[:, 2] = before[:, 1]
        oracle.assert_same(after, expected)
    assert int(num_dropped) == 1


def test_many_pages_take_several_steps():
    pool = np.arange(200, dtype=np.float32)[:, None, None] * np.ones((1, 8, 128), np.float32)
    ids = np.random.default_rng(0).integers(-3, 203, 150).astype(np.int32)
    rows, _ = run("gather_pages", pool, ids, np.int32(0), layered=False, page_axis=0)
    valid = (ids >= 0) & (ids < 200)
    np.testing.assert_array_equal(np.asarray(rows)[:, 0, 0], np.where(valid, ids, 0))
    targets = ids[::-1].copy()
    _, written = run("copy_pages", ids, targets, pool, page_axis=0)
    expected = pool[:, 0, 0].copy()
    for source, target in zip(ids, targets, strict=True):
        if 0 <= source < 200 and 0 <= target < 200:
            expected[target] = source
    np.testing.assert_array_equal(np.asarray(written)[:, 0, 0], expected)


def test_pages_move_to_rows_and_back():
    pools = [make_pool(seed=seed) for seed in range(2)]
    jax_pools = [*map(jnp.asarray, pools)]
    rows = jnp.zeros((len(IDS), sum(pool[:, 0].nbytes for pool in pools)), jnp.uint8)
    moved = run("pages_to_rows", IDS, rows, *pools, page_axis=1)
    expected = _reference.pages_to_rows(jnp.asarray(IDS), rows, *jax_pools, page_axis=1)
    for ours, theirs in zip(moved, expected, strict=True):
        oracle.assert_same(ours, np.asarray(theirs))
    empty = [np.zeros_like(pool) for pool in pools]
    num_dropped, *back = run("rows_to_pages", IDS, moved[1], *empty, page_axis=1)
    for pool, after in zip(pools, back, strict=True):
        expected = np.zeros_like(pool)
        expected[:, IDS[VALID]] = pool[:, IDS[VALID]]
        oracle.assert_same(after, expected)
    assert int(num_dropped) == NUM_DROPPED


def test_a_batch_equals_its_elements():
    pool, ids = make_pool(), np.stack([IDS, IDS[::-1]])
    gather = functools.partial(_tpu.gather_pages, layered=True, page_axis=0, interpret=True)
    rows, num_dropped = jax.vmap(gather, in_axes=(None, 0, None))(pool, ids, np.int32(1))
    for i in range(2):
        oracle.assert_same(rows[i], gathered(pool, ids[i], 0))
        assert int(num_dropped[i]) == NUM_DROPPED


def test_an_axis_of_pages_inside_tiles_is_not_served():
    ids = jnp.asarray(IDS)
    assert _pages.serves(jax.ShapeDtypeStruct((4, 8, 128), "float32"), ids, 0)
    assert not _pages.serves(jax.ShapeDtypeStruct((4, 8, 128), "float32"), ids, 1)
    assert not _pages.serves(jax.ShapeDtypeStruct((4, 8, 128), "float32"), ids[:0], 0)
