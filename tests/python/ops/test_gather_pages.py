"""gather_pages against a NumPy loop, in every transform, and each text of its refusals."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import ops_oracle as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from pagedkv.ops import PageGather, _reference, gather_pages, register_targets, write_kv
from pagedkv.testing import assert_in_place

LAYERS, PAGES, PAGE_SIZE, HEADS, DIM = 3, 8, 4, 2, 8
MIXED_IDS = [5, -1, PAGES, 0, -2, 7, 7, 2**31 - 1, -(2**31)]
NUM_BAD = 4


def pool(dtype="float32", *, layered=False, seed=0):
    shape = (LAYERS,) * layered + (PAGES, PAGE_SIZE, HEADS, DIM)
    return oracle.random_array(np.random.default_rng(seed), shape, dtype)


def assert_gathered(actual, expected):
    oracle.assert_same(actual[0], expected[0])
    assert int(actual[1]) == expected[1]


def xla_gather(pages, ids, layer=None):
    return _reference.gather_pages(
        jnp.asarray(pages),
        jnp.asarray(ids),
        jnp.int32(layer or 0),
        layered=layer is not None,
        page_axis=0,
    )


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("layer", [None, 0, 2])
@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_equals_the_loop(dtype, layer, transform):
    pages, ids = pool(dtype, layered=layer is not None), np.int32(MIXED_IDS)
    actual = transform(functools.partial(gather_pages, layer=layer))(pages, ids)
    assert_gathered(actual, oracle.gather_pages(pages, ids, layer))
    assert int(actual.num_dropped) == NUM_BAD


@pytest.mark.parametrize("layer", [None, 1])
@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_reference_equals_the_loop(dtype, layer):
    pages, ids = pool(dtype, layered=layer is not None), np.int32(MIXED_IDS)
    assert_gathered(xla_gather(pages, ids, layer), oracle.gather_pages(pages, ids, layer))


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3), (2, 0), (1, 2, 3)], ids=str)
def test_ids_may_have_any_shape(shape):
    ids = np.random.default_rng(0).integers(-2, PAGES + 2, shape).astype(np.int32)
    ids = np.asarray(ids)
    assert_gathered(gather_pages(pool(), ids), oracle.gather_pages(pool(), ids))


@pytest.mark.parametrize("layer", [-1, LAYERS, 2**31 - 1, -(2**31)])
def test_layer_array_out_of_range_gives_zeros_and_counts_all_but_padding(layer):
    pages, ids = pool(layered=True), np.int32(MIXED_IDS)
    gathered = gather_pages(pages, ids, layer=jnp.int32(layer))
    assert not gathered.rows.any()
    assert int(gathered.num_dropped) == len(MIXED_IDS) - 1
    assert_gathered(xla_gather(pages, ids, layer), oracle.gather_pages(pages, ids, layer))


def test_no_pages():
    pages, ids = pool()[:0], np.int32([0, -1])
    assert_gathered(gather_pages(pages, ids), oracle.gather_pages(pages, ids))
    assert_gathered(xla_gather(pages, ids), oracle.gather_pages(pages, ids))


sizes = st.integers(1, 4)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(sizes, st.integers(0, 9), sizes, sizes, st.integers(1, 9)),
    dtype=st.sampled_from(["float32", "bfloat16", "int8"]),
    ids=st.lists(st.one_of(st.integers(-2, 10), st.sampled_from([2**31 - 1])), max_size=12),
    layer=st.integers(-1, 4),
)
def test_any_shape_equals_the_loop(shape, dtype, ids, layer):
    pages = oracle.random_array(np.random.default_rng(0), shape, dtype)
    ids = np.array(ids, np.int32)
    expected = oracle.gather_pages(pages, ids, layer)
    assert_gathered(gather_pages(pages, ids, layer=jnp.int32(layer)), expected)


# Transforms

BATCH = 3


@pytest.mark.parametrize("mapped", ["pil", "pi", "i", "l", "p", "il"])
def test_vmap_equals_a_loop_over_the_batch(mapped):
    pages = np.stack([pool(layered=True, seed=seed) for seed in range(BATCH)])
    ids = np.int32([[[1, 2], [-1, 8]], [[3, 3], [-2, 0]], [[7, 6], [5, 4]]])
    layers = np.int32([2, 0, 3])
    in_axes = tuple(0 if name in mapped else None for name in "pil")
    arrays = [
        array if axis == 0 else array[0]
        for array, axis in zip((pages, ids, layers), in_axes, strict=True)
    ]
    actual = jax.vmap(lambda p, i, layer: gather_pages(p, i, layer=layer), in_axes=in_axes)(*arrays)
    for b in range(BATCH):
        one = [a[b] if axis == 0 else a for a, axis in zip(arrays, in_axes, strict=True)]
        assert_gathered((actual.rows[b], actual.num_dropped[b]), oracle.gather_pages(*one))


def test_vmap_of_vmap_with_axes_mapped_apart():
    # The outer map runs over pools and the inner one over ids, so neither has the whole batch.
    pools = np.stack([pool(seed=0), pool(seed=1)])
    ids = np.int32([[1, 9], [2, -1], [3, 0]])
    inner = jax.vmap(gather_pages, in_axes=(None, 0))
    actual = jax.vmap(inner, in_axes=(0, None))(pools, ids)
    for a in range(2):
        for b in range(3):
            expected = oracle.gather_pages(pools[a], ids[b])
            assert_gathered((actual.rows[a, b], actual.num_dropped[a, b]), expected)


def test_vmap_over_ids_does_not_copy_the_pool():
    pages = jnp.zeros([256, 16, 2, 64])
    ids = jnp.zeros([64, 1], jnp.int32)
    compiled = jax.jit(jax.vmap(gather_pages, in_axes=(None, 0))).lower(pages, ids).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < pages.nbytes / 64


def test_write_then_gather_is_in_place():
    pages = jnp.zeros([LAYERS, 64, 16, 2, 64], jnp.bfloat16)
    row = jnp.ones([1, 2, 64], jnp.bfloat16)

    def step(key_pages, value_pages, slots):
        def body(pools, layer):
            written = write_kv(*pools, row, row, slots, layer=layer)
            rows = gather_pages(written.key_pages, slots // 16, layer=layer).rows
            return (written.key_pages, written.value_pages), rows[0, slots[0] % 16, 0, 0]

        layers = jnp.arange(LAYERS, dtype=jnp.int32)
        return jax.lax.scan(body, (key_pages, value_pages), layers)

    jitted = jax.jit(step, donate_argnums=(0, 1))
    slots = jnp.int32([37])
    assert_in_place(jitted, pages, pages, slots)
    assert jitted(pages, pages + 0, slots)[1].tolist() == [1.0] * LAYERS


def test_shard_map_reads_the_heads_of_each_device():
    mesh = jax.make_mesh((2,), ("tp",), axis_types=(AxisType.Auto,))
    pages, ids = pool("bfloat16"), np.int32(MIXED_IDS)
    spec = P(None, None, "tp", None)
    gathered = jax.jit(
        jax.shard_map(
            gather_pages, mesh=mesh, in_specs=(spec, P()), out_specs=PageGather(spec, P())
        )
    )(pages, ids)
    assert_gathered(gathered, oracle.gather_pages(pages, ids))


def test_other_platforms_get_the_xla_branch():
    traced = jax.jit(gather_pages).trace(pool(), np.int32([1]))
    assert "pagedkv.gather_pages.v2" in traced.lower(lowering_platforms=("cpu",)).as_text()
    assert "pagedkv.gather_pages.v2" not in traced.lower(lowering_platforms=("tpu",)).as_text()


# Refusals


def test_mode_raise_names_the_page():
    with pytest.raises(
        jax.errors.JaxRuntimeError,
        match=r"\[gather_pages\] page 8 at position 2 is out of range \[0, 8\)",
    ):
        jax.block_until_ready(gather_pages(pool(), np.int32([[0, -1], [8, 1]]), mode="raise"))


def test_mode_raise_names_the_layer():
    pages = pool(layered=True)
    with pytest.raises(
        jax.errors.JaxRuntimeError, match=r"\[gather_pages\] layer 3 is out of range \[0, 3\)"
    ):
        jax.block_until_ready(gather_pages(pages, np.int32([0]), layer=jnp.int32(3), mode="raise"))


def test_mode_raise_lets_good_ids_and_padding_pass():
    ids = np.int32([0, -1, 7])
    assert_gathered(gather_pages(pool(), ids, mode="raise"), oracle.gather_pages(pool(), ids))


def test_differentiation_is_refused():
    def loss(pages):
        return gather_pages(pages, jnp.int32([1])).rows.sum()

    with pytest.raises(ValueError, match=r"\[gather_pages\] has no derivative"):
        jax.grad(loss)(jnp.asarray(pool()))


PACKED = np.zeros((8, 4, 1, 3), ml_dtypes.int4)

BAD_CALLS = {
    "list of ids": (
        (pool(), [1]),
        {},
        TypeError,
        r"page_ids must be an array, got list",
    ),
    "int64 ids": ((pool(), np.int64([1])), {}, TypeError, r"page_ids must be int32, got int64"),
    "pool without heads": (
        (pool()[0], np.int32([1])),
        {},
        ValueError,
        r"pages must have shape \[pages, page_size, kv_heads, head_dim\] without layer, got \[4, ",
    ),
    "pool without layers": (
        (pool(), np.int32([1])),
        {"layer": 0},
        ValueError,
        r"pages must have shape \[layers, pages, page_size, kv_heads, head_dim\] with layer, got",
    ),
    "packed rows": (
        (PACKED, np.int32([1])),
        {},
        ValueError,
        r"a row \[1, 3\] of pages must be whole bytes, got 12 bits of int4",
    ),
    "layer too large": (
        (pool(layered=True), np.int32([1])),
        {"layer": 3},
        IndexError,
        r"layer 3 is out of range \[0, 3\)",
    ),
    "mode": (
        (pool(), np.int32([1])),
        {"mode": "clip"},
        ValueError,
        r"mode must be 'drop' or 'raise', got 'clip'",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_refuses_at_trace_time(name):
    arrays, kwargs, error, text = BAD_CALLS[name]
    with pytest.raises(error, match=r"\[gather_pages\] " + text):
        gather_pages(*arrays, **kwargs)


# The handler trusts nobody: the same questions, asked past Python


def call_handler(
    pages, ids, *, layer=0, rows=None, count=None, layered=False, page_axis=0, mode="drop"
):
    """Calls the FFI target without the checks of Python."""
    register_targets()
    layer = np.asarray(layer, np.int32 if isinstance(layer, int) else None)
    if rows is None:
        rows = jax.ShapeDtypeStruct((*ids.shape, *pages.shape[1:]), pages.dtype)
    if count is None:
        count = jax.ShapeDtypeStruct((), jnp.int32)
    function = jax.ffi.ffi_call("pagedkv.gather_pages.v2", (rows, count))
    return jax.block_until_ready(
        function(pages, ids, layer, layered=layered, page_axis=page_axis, mode=mode)
    )


IDS = np.int32([1, 2])
SHAPE = jax.ShapeDtypeStruct

BAD_HANDLER_CALLS = {
    "mode": ((pool(), IDS), {"mode": "wrap"}, r"mode must be drop or raise, got wrap"),
    "uint32 ids": ((pool(), np.uint32([1])), {}, r"page_ids must be S32, got U32"),
    "float layer": ((pool(), IDS), {"layer": np.float32(0)}, r"layer must be S32, got F32"),
    "dtype of the count": (
        (pool(), IDS),
        {"count": SHAPE((), jnp.float32)},
        r"num_dropped must be S32, got F32",
    ),
    "rank of the pool": (
        (pool()[0, 0, 0, 0], IDS),
        {"rows": SHAPE((2,), jnp.float32)},
        r"pages must have more axes than the 0 before and the 0 between them and its pages, got \[\]",
    ),
    "page axis": (
        (pool(), IDS),
        {"page_axis": 4},
        r"pages must have more axes than the 0 before and the 4 between them and its pages, got \[8",
    ),
    "negative page axis": (
        (pool(), IDS),
        {"page_axis": -1},
        r"pages must have more axes than the 0 before and the -1 between them and its pages, got",
    ),
    "batch of the pool": (
        (pool(), np.int32([[1, 2]])),
        {"layer": np.int32([0]), "count": SHAPE((2,), jnp.int32)},
        r"pages must have batch axes that broadcast to the \[2\] of num_dropped, got \[8, 4, 2, 8\]",
    ),
    "batch of the ids": (
        (pool()[:1], np.int32([1, 2, 3])),
        {"layer": np.int32([0]), "count": SHAPE((2,), jnp.int32)},
        r"page_ids must have batch axes that broadcast to the \[2\] of num_dropped, got \[3\]",
    ),
    "batch of the layer": (
        (pool(), IDS),
        {"layer": np.int32([0])},
        r"layer must broadcast to the shape \[\] of num_dropped, got \[1\]",
    ),
    "dtype of rows": (
        (pool(), IDS),
        {"rows": SHAPE((2, 4, 2, 8), jnp.int32)},
        r"rows must be F32 as pages, got S32",
    ),
    "shape of rows": (
        (pool(), IDS),
        {"rows": SHAPE((3, 4, 2, 8), jnp.float32)},
        (
            r"rows must have the axes \[\] of num_dropped, \[2\] of page_ids and the page \[4, 2, 8\], "
            r"got \[3, 4, 2, 8\]"
        ),
    ),
    "packed pages": (
        (PACKED[:, :3], IDS),
        {},
        r"a page of pages \[8, 3, 1, 3\] has parts of 36 bits of S4, not whole bytes",
    ),
    "page": (
        (pool(), np.int32([9])),
        {"mode": "raise"},
        r"page 9 at position 0 is out of range \[0, 8\)",
    ),
    "layer": (
        (pool(), IDS),
        {"mode": "raise", "layer": -1},
        r"layer -1 is out of range \[0, 1\)",
    ),
}


@pytest.mark.parametrize("name", BAD_HANDLER_CALLS)
def test_handler_refuses(name):
    arrays, kwargs, text = BAD_HANDLER_CALLS[name]
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"\[gather_pages\] " + text):
        call_handler(*arrays, **kwargs)
