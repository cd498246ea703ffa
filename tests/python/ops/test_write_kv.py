"""write_kv against a NumPy loop, in every transform, and each text of its refusals."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import ops_oracle as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from pagedkv.ops import KVLayout, _reference, register_targets, write_kv
from pagedkv.testing import assert_in_place

LAYERS, PAGES, PAGE_SIZE, HEADS, DIM = 3, 8, 4, 2, 8
NUM_SLOTS = PAGES * PAGE_SIZE
MIXED_SLOTS = [5, -1, NUM_SLOTS, 0, -2, 31, 2**31 - 1, -(2**31)]
NUM_BAD = 4


def operands(dtype="float32", *, layered=False, slots=tuple(MIXED_SLOTS), value_dim=DIM, seed=0):
    rng = np.random.default_rng(seed)
    leading = (LAYERS,) * layered
    return (
        oracle.random_array(rng, (*leading, PAGES, PAGE_SIZE, HEADS, DIM), dtype),
        oracle.random_array(rng, (*leading, PAGES, PAGE_SIZE, HEADS, value_dim), dtype),
        oracle.random_array(rng, (len(slots), HEADS, DIM), dtype),
        oracle.random_array(rng, (len(slots), HEADS, value_dim), dtype),
        np.array(slots, np.int32),
    )


def assert_written(actual, expected):
    for pool, wanted in zip(actual[:2], expected[:2], strict=True):
        oracle.assert_same(pool, wanted)
    assert int(actual[2]) == expected[2]


def xla_write(*arrays, layer=None):
    layered = layer is not None
    *pools_and_rows, slots = map(jnp.asarray, arrays)
    num_dropped, *pools = _reference.write_kv(
        slots, jnp.int32(layer or 0), *pools_and_rows, layout=KVLayout.NHD, layered=layered
    )
    return *pools, num_dropped


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("layer", [None, 0, 2])
@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_equals_the_loop(dtype, layer, transform):
    arrays = operands(dtype, layered=layer is not None)
    actual = transform(functools.partial(write_kv, layer=layer))(*arrays)
    assert_written(actual, oracle.write_kv(*arrays, layer=layer))
    assert int(actual.num_dropped) == NUM_BAD


@pytest.mark.parametrize("layer", [None, 1])
@pytest.mark.parametrize("dtype", oracle.DTYPES)
def test_reference_equals_the_loop(dtype, layer):
    arrays = operands(dtype, layered=layer is not None)
    assert_written(xla_write(*arrays, layer=layer), oracle.write_kv(*arrays, layer=layer))


def test_calls_that_differ_in_little_are_told_apart():
    # More kinds of calls than a thread remembers, in one program and twice over. Some differ in an
    # attribute alone: with as many heads as tokens of a page, three layouts have pools of one shape.
    heads = PAGES
    rng = np.random.default_rng(0)
    pool, other = (
        oracle.random_array(rng, (heads, PAGES, heads, DIM), "float32") for _ in range(2)
    )
    layouts = ["NHD", "HND", "HEADS_FIRST"]
    kinds = [(layout, num_rows) for num_rows in (1, 2, 3, 5) for layout in layouts] * 2
    rows = [oracle.random_array(rng, (n, heads, DIM), "float32") for _, n in kinds]
    slots = [rng.choice(PAGES * heads, n, replace=False).astype(np.int32) for _, n in kinds]

    @jax.jit
    def program(pools, rows, slots):
        dropped = 0
        for (layout, _), row, ids in zip(kinds, rows, slots, strict=True):
            *pools, count = write_kv(*pools, row, -row, ids, layout=layout)
            dropped += count
        return *pools, dropped

    expected = [pool, other]
    for (layout, _), row, ids in zip(kinds, rows, slots, strict=True):
        expected, _ = oracle.write_layout(
            KVLayout[layout], [p[None] for p in expected], [row, -row], ids, 0
        )
        expected = [p[0] for p in expected]
    for _ in range(2):
        assert_written(program([pool, other], rows, slots), (*expected, 0))


def test_modes_are_told_apart():
    arrays = operands()
    compiled = {
        mode: jax.jit(functools.partial(write_kv, mode=mode)).lower(*arrays).compile()
        for mode in ("drop", "raise")
    }
    for _ in range(2):
        assert int(compiled["drop"](*arrays).num_dropped) == NUM_BAD
        with pytest.raises(jax.errors.JaxRuntimeError, match=f"slot {NUM_SLOTS} at position 2"):
            jax.block_until_ready(compiled["raise"](*arrays))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_moves_bits_and_not_numbers(dtype):
    arrays = operands(dtype, slots=[7])
    width = np.dtype(dtype).itemsize
    noise = np.random.default_rng(1).integers(0, 256, HEADS * DIM * width, np.uint8)
    key = noise.view(dtype).reshape(1, HEADS, DIM)  # NaNs with payloads among them
    written = write_kv(arrays[0], arrays[1], key, key, arrays[4])
    assert np.asarray(written.key_pages)[1, 3].tobytes() == key.tobytes()
    assert np.asarray(written.value_pages)[1, 3].tobytes() == key.tobytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "int4"])
def test_key_and_value_may_differ_in_head_dim(dtype):
    arrays = operands(dtype, layered=True, value_dim=2)
    assert_written(write_kv(*arrays, layer=1), oracle.write_kv(*arrays, layer=1))


def test_key_and_value_may_differ_in_dtype():
    keys, values = operands("bfloat16"), operands("int8")
    arrays = (keys[0], values[1], keys[2], values[3], keys[4])
    assert_written(write_kv(*arrays), oracle.write_kv(*arrays))


def test_last_of_equal_slots_wins():
    arrays = operands(slots=[3, 3, 3])
    written = write_kv(*arrays)
    oracle.assert_same(written.key_pages[0, 3], arrays[2][2])
    oracle.assert_same(written.value_pages[0, 3], arrays[3][2])


@pytest.mark.parametrize("layer", [-1, LAYERS, 2**31 - 1, -(2**31)])
def test_layer_array_out_of_range_writes_nothing_and_counts_all_but_padding(layer):
    arrays = operands(layered=True)
    written = write_kv(*arrays, layer=jnp.int32(layer))
    oracle.assert_same(written.key_pages, arrays[0])
    oracle.assert_same(written.value_pages, arrays[1])
    assert int(written.num_dropped) == len(MIXED_SLOTS) - 1
    assert_written(xla_write(*arrays, layer=layer), oracle.write_kv(*arrays, layer=layer))


def test_no_tokens_and_no_pages():
    arrays = operands(slots=[])
    assert_written(write_kv(*arrays), oracle.write_kv(*arrays))
    empty = (arrays[0][:0], arrays[1][:0], *operands(slots=[0, -1])[2:])
    assert_written(write_kv(*empty), oracle.write_kv(*empty))
    assert_written(xla_write(*empty), oracle.write_kv(*empty))


sizes = st.integers(1, 4)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(sizes, st.integers(0, 4), sizes, sizes, sizes),
    value_dim=sizes,
    dtype=st.sampled_from(["float32", "bfloat16", "int8"]),
    slots=st.lists(st.one_of(st.integers(-2, 17), st.sampled_from([2**31 - 1])), max_size=6),
    layer=st.integers(-1, 4),
    seed=st.integers(0, 9),
)
def test_any_shape_equals_the_loop(shape, value_dim, dtype, slots, layer, seed):
    rng = np.random.default_rng(seed)
    arrays = (
        oracle.random_array(rng, shape, dtype),
        oracle.random_array(rng, (*shape[:-1], value_dim), dtype),
        oracle.random_array(rng, (len(slots), *shape[3:]), dtype),
        oracle.random_array(rng, (len(slots), shape[3], value_dim), dtype),
        np.array(slots, np.int32),
    )
    expected = oracle.write_kv(*arrays, layer=layer)
    assert_written(write_kv(*arrays, layer=jnp.int32(layer)), expected)


# In place


@pytest.mark.parametrize("dtype", oracle.DTYPES)
@pytest.mark.parametrize("layer", [None, 1])
def test_reuses_donated_memory(dtype, layer):
    arrays = [jnp.array(a) for a in operands(dtype, layered=layer is not None)]
    write = jax.jit(functools.partial(write_kv, layer=layer), donate_argnums=(0, 1))
    assert_in_place(write, *arrays, pools=arrays[:2])
    before = [pool.unsafe_buffer_pointer() for pool in arrays[:2]]
    written = write(*arrays)
    assert [pool.unsafe_buffer_pointer() for pool in written[:2]] == before
    assert all(pool.is_deleted() for pool in arrays[:2])


def test_without_donation_the_old_pools_survive():
    arrays = [jnp.array(a) for a in operands()]
    before = [np.array(pool) for pool in arrays[:2]]
    jax.jit(write_kv)(*arrays)
    for pool, wanted in zip(arrays[:2], before, strict=True):
        oracle.assert_same(pool, wanted)


def scan_layers(key_pages, value_pages, key, value, slots):
    def body(pools, layer):
        written = write_kv(*pools, key + layer.astype(key.dtype), value, slots, layer=layer)
        return (written.key_pages, written.value_pages), written.num_dropped

    layers = jnp.arange(key_pages.shape[0], dtype=jnp.int32)
    return jax.lax.scan(body, (key_pages, value_pages), layers)


def test_scan_carries_the_stacked_pool_in_place():
    arrays = operands("bfloat16", layered=True)
    step = jax.jit(scan_layers, donate_argnums=(0, 1))
    assert_in_place(step, *arrays, pools=arrays[:2])
    (key_pages, value_pages), num_dropped = step(*map(jnp.array, arrays))
    expected = arrays[:2]
    for layer in range(LAYERS):
        *expected, _ = oracle.write_kv(
            *expected, arrays[2] + arrays[2].dtype.type(layer), *arrays[3:], layer=layer
        )
    oracle.assert_same(key_pages, expected[0])
    oracle.assert_same(value_pages, expected[1])
    assert num_dropped.tolist() == [NUM_BAD] * LAYERS


# vmap

BATCH = 3


def batched_operands():
    """Every operand with a leading batch axis, the layer last."""
    batches = [operands(layered=True, seed=seed) for seed in range(BATCH)]
    arrays = [np.stack(column) for column in zip(*batches, strict=True)]
    arrays[4] = np.int32([[1, 2, -1, 40, 5, 6, 7, 8], [31, 30, -2, 3, 3, 3, 0, -1], [9] * 8])
    return [*arrays, np.int32([2, 0, 7])]


def with_layer(*arrays):
    return write_kv(*arrays[:-1], layer=arrays[-1])


@pytest.mark.parametrize(
    "mapped",
    ["pkqvsl", "kqvsl", "pkqvs", "s", "l", "k", "p", "pl", "kv"],
    ids=lambda mapped: f"mapped_{mapped}",
)
def test_vmap_equals_a_loop_over_the_batch(mapped):
    in_axes = tuple(0 if name in mapped else None for name in "pqkvsl")
    arrays = [
        array if axis == 0 else array[0]
        for array, axis in zip(batched_operands(), in_axes, strict=True)
    ]
    actual = jax.vmap(with_layer, in_axes=in_axes)(*arrays)
    for b in range(BATCH):
        one = [a[b] if axis == 0 else a for a, axis in zip(arrays, in_axes, strict=True)]
        expected = oracle.write_kv(*one[:-1], layer=one[-1])
        assert_written([result[b] for result in actual], expected)


def test_vmap_of_vmap_equals_two_loops():
    arrays = batched_operands()
    outer = [np.stack([a, a[::-1]]) for a in arrays]
    actual = jax.vmap(jax.vmap(with_layer))(*outer)
    for a in range(2):
        for b in range(BATCH):
            one = [array[a, b] for array in outer]
            expected = oracle.write_kv(*one[:-1], layer=one[-1])
            assert_written([result[a, b] for result in actual], expected)


def test_vmap_is_in_place():
    arrays = batched_operands()
    step = jax.jit(jax.vmap(with_layer), donate_argnums=(0, 1))
    assert_in_place(step, *arrays, pools=arrays[:2])


# Sharding


@pytest.fixture
def mesh():
    return jax.make_mesh((2, 4), ("dp", "tp"), axis_types=(AxisType.Auto,) * 2)


def test_shard_map_over_pages_and_heads_is_in_place(mesh):
    # Each dp shard owns half of the pages and numbers its slots from 0; heads lie over tp.
    pool_spec, row_spec = P(None, "dp", None, "tp", None), P("dp", "tp", None)
    rng = np.random.default_rng(0)
    pools = [oracle.random_array(rng, (LAYERS, 8, 4, 4, 8), "bfloat16") for _ in range(2)]
    rows = [oracle.random_array(rng, (6, 4, 8), "bfloat16") for _ in range(2)]
    slots = np.int32([3, 15, -1, 0, 16, 7])

    def local(*arrays):
        pools, num_dropped = scan_layers(*arrays)
        return *pools, num_dropped[None, :]

    specs = (pool_spec, pool_spec, row_spec, row_spec, P("dp"))
    step = jax.jit(
        jax.shard_map(
            local, mesh=mesh, in_specs=specs, out_specs=(pool_spec, pool_spec, P("dp", None))
        ),
        donate_argnums=(0, 1),
    )
    arrays = [
        jax.device_put(array, NamedSharding(mesh, spec))
        for array, spec in zip([*pools, *rows, slots], specs, strict=True)
    ]
    assert_in_place(step, *arrays, pools=arrays[:2])
    *actual, num_dropped = step(*arrays)
    assert num_dropped.tolist() == [[0] * LAYERS, [1] * LAYERS]
    for shard in range(2):
        pages, tokens = np.s_[:, 4 * shard : 4 * shard + 4], np.s_[3 * shard : 3 * shard + 3]
        expected = [pool[pages] for pool in pools]
        for layer in range(LAYERS):
            *expected, _ = oracle.write_kv(
                *expected,
                rows[0][tokens] + rows[0].dtype.type(layer),
                rows[1][tokens],
                slots[tokens],
                layer=layer,
            )
        for pool, wanted in zip(actual, expected, strict=True):
            oracle.assert_same(np.asarray(pool)[pages], wanted)


def test_shard_map_takes_a_replicated_pool_and_sharded_rows(mesh):
    arrays = operands(slots=list(range(8)))
    specs = (P(), P(), P("tp"), P("tp"), P("tp"))
    step = jax.shard_map(
        lambda *a: jax.tree.map(lambda x: x[None], write_kv(*a)),
        mesh=mesh,
        in_specs=specs,
        out_specs=P("tp"),
    )
    key_pages, _, num_dropped = jax.jit(step)(*arrays)
    assert num_dropped.tolist() == [0] * 4
    for shard in range(4):
        mine = np.s_[2 * shard : 2 * shard + 2]
        expected = oracle.write_kv(*arrays[:2], arrays[2][mine], arrays[3][mine], arrays[4][mine])
        oracle.assert_same(np.asarray(key_pages)[shard], expected[0])


def test_other_platforms_get_the_xla_branch():
    traced = jax.jit(write_kv).trace(*operands())
    assert "pagedkv.write_kv.v2" in traced.lower(lowering_platforms=("cpu",)).as_text()
    assert "pagedkv.write_kv.v2" not in traced.lower(lowering_platforms=("tpu",)).as_text()


# Refusals


@pytest.mark.parametrize(
    ("slots", "text"),
    [
        ([3, 32, -1], r"\[write_kv\] slot 32 at position 1 is out of range \[0, 32\)"),
        ([-1, 3, -7], r"\[write_kv\] slot -7 at position 2 is out of range \[0, 32\)"),
    ],
)
def test_mode_raise_names_the_slot(slots, text):
    with pytest.raises(jax.errors.JaxRuntimeError, match=text):
        jax.block_until_ready(write_kv(*operands(slots=slots), mode="raise"))


def test_mode_raise_names_the_layer():
    arrays = operands(layered=True)
    with pytest.raises(
        jax.errors.JaxRuntimeError, match=r"\[write_kv\] layer 3 is out of range \[0, 3\)"
    ):
        jax.block_until_ready(write_kv(*arrays, layer=jnp.int32(3), mode="raise"))


def test_mode_raise_lets_good_slots_and_padding_pass():
    arrays = operands(slots=[3, -1, 31])
    assert_written(write_kv(*arrays, mode="raise"), oracle.write_kv(*arrays))


def test_differentiation_is_refused():
    arrays = [jnp.array(a) for a in operands()]

    def loss(key):
        return write_kv(*arrays[:2], key, *arrays[3:]).key_pages.sum()

    with pytest.raises(ValueError, match=r"\[write_kv\] has no derivative"):
        jax.grad(loss)(arrays[2])
    assert not jax.grad(lambda key: loss(jax.lax.stop_gradient(key)))(arrays[2]).any()


def replaced(index, change, **kwargs):
    arrays = list(operands(**kwargs))
    arrays[index] = change(arrays[index])
    return arrays


BAD_CALLS = {
    "list of slots": (
        replaced(4, list),
        TypeError,
        r"\[write_kv\] slot_mapping must be an array, got list",
    ),
    "int64 slots": (
        replaced(4, lambda a: a.astype(np.int64)),
        TypeError,
        r"\[write_kv\] slot_mapping must be int32, got int64",
    ),
    "two axes of slots": (
        replaced(4, lambda a: a[None]),
        ValueError,
        r"\[write_kv\] slot_mapping must have shape \[tokens\], got \[1, 8\]",
    ),
    "pool without heads": (
        replaced(0, lambda a: a[:, :, 0]),
        ValueError,
        (
            r"\[write_kv\] key_pages must have shape \[pages, page_size, kv_heads, head_dim\] "
            r"without layer, got \[8, 4, 8\]"
        ),
    ),
    "key of another dtype": (
        replaced(2, lambda a: a.astype(np.float16)),
        TypeError,
        r"\[write_kv\] key must be float32 as key_pages, got float16",
    ),
    "value of another dtype": (
        replaced(3, lambda a: a.astype(np.float64)),
        TypeError,
        r"\[write_kv\] value must be float32 as value_pages, got float64",
    ),
    "key of another head_dim": (
        replaced(2, lambda a: a[:, :, :4]),
        ValueError,
        r"\[write_kv\] key must have shape \[8, 2, 8\], got \[8, 2, 4\]",
    ),
    "value for fewer tokens": (
        replaced(3, lambda a: a[:4]),
        ValueError,
        r"\[write_kv\] value must have shape \[8, 2, 8\], got \[4, 2, 8\]",
    ),
    "value pool with fewer pages": (
        replaced(1, lambda a: a[:4]),
        ValueError,
        (
            r"\[write_kv\] value_pages must have the shape of key_pages but for head_dim, "
            r"\[8, 4, 2, 8\], got \[4, 4, 2, 8\]"
        ),
    ),
    "rows of half a byte more": (
        [
            np.zeros((8, 4, 1, 3), ml_dtypes.int4),
            np.zeros((8, 4, 1, 3), ml_dtypes.int4),
            np.zeros((1, 1, 3), ml_dtypes.int4),
            np.zeros((1, 1, 3), ml_dtypes.int4),
            np.int32([0]),
        ],
        ValueError,
        r"\[write_kv\] a row \[1, 3\] of key_pages must be whole bytes, got 12 bits of int4",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_refuses_at_trace_time(name):
    arrays, error, text = BAD_CALLS[name]
    with pytest.raises(error, match=text):
        write_kv(*arrays)


@pytest.mark.parametrize(
    ("layer", "error", "text"),
    [
        (3, IndexError, r"\[write_kv\] layer 3 is out of range \[0, 3\)"),
        (-1, IndexError, r"\[write_kv\] layer -1 is out of range \[0, 3\)"),
        (True, TypeError, r"\[write_kv\] layer must be an array, got bool"),
        (1.0, TypeError, r"\[write_kv\] layer must be an array, got float"),
        (np.float32(1), TypeError, r"\[write_kv\] layer must be int32, got float32"),
        (np.int32([1]), ValueError, r"\[write_kv\] layer must be a scalar, got \[1\]"),
    ],
)
def test_refuses_a_bad_layer(layer, error, text):
    with pytest.raises(error, match=text):
        write_kv(*operands(layered=True), layer=layer)


def test_refuses_layer_and_pools_that_do_not_match():
    with pytest.raises(ValueError, match=r"kv_heads, head_dim\] without layer, got \[3, 8"):
        write_kv(*operands(layered=True))
    with pytest.raises(ValueError, match=r"key_pages must have shape \[layers, .* with layer, got"):
        write_kv(*operands(), layer=0)


def test_refuses_an_unknown_mode():
    with pytest.raises(
        ValueError, match=r"\[write_kv\] mode must be 'drop' or 'raise', got 'wrap'"
    ):
        write_kv(*operands(), mode="wrap")


def test_refuses_pools_beyond_int32_slots_and_extended_dtypes():
    pool = jax.ShapeDtypeStruct((2**28, 8, 1, 1), jnp.int8)
    row = jax.ShapeDtypeStruct((1, 1, 1), jnp.int8)
    with pytest.raises(ValueError, match=r"at most 2147483647 slots a layer, .* got 2147483648"):
        jax.eval_shape(write_kv, pool, pool, row, row, jax.ShapeDtypeStruct((1,), jnp.int32))
    keys = jax.random.split(jax.random.key(0), (1, 1, 1, 1))
    with pytest.raises(
        TypeError, match=r"\[write_kv\] key_pages must be of a plain dtype, got key"
    ):
        write_kv(keys, keys, keys[0], keys[0], np.int32([0]))


# The handler trusts nobody: the same questions, asked past Python


def call_handler(arrays, *, layer=0, results=None, layered=False, layout="NHD", mode="drop"):
    """Calls the FFI target without the checks of Python."""
    register_targets()
    layer = np.asarray(layer, np.int32 if isinstance(layer, int) else None)
    key_pages, value_pages = (jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays[:2])
    declared = {
        "num_dropped": jax.ShapeDtypeStruct(layer.shape, jnp.int32),
        "key_pages": key_pages,
        "value_pages": value_pages,
    } | (results or {})
    results = tuple(result for result in declared.values() if result is not None)
    function = jax.ffi.ffi_call("pagedkv.write_kv.v2", results)
    num_dropped, *pools = jax.block_until_ready(
        function(arrays[4], layer, *arrays[:4], layout=layout, layered=layered, mode=mode)
    )
    return *pools, num_dropped


def test_handler_copies_the_pools_where_they_are_not_aliased():
    arrays = operands()
    assert_written(call_handler(arrays), oracle.write_kv(*arrays))


INT4_ARRAYS = BAD_CALLS["rows of half a byte more"][0]
SHAPE = jax.ShapeDtypeStruct

BAD_HANDLER_CALLS = {
    "mode": (operands(), {"mode": "wrap"}, r"mode must be drop or raise, got wrap"),
    "uint32 slots": (
        replaced(4, lambda a: a.astype(np.uint32)),
        {},
        r"slot_mapping must be S32, got U32",
    ),
    "float layer": (operands(), {"layer": np.float32(0)}, r"layer must be S32, got F32"),
    "axes of slots": (
        replaced(4, lambda a: a[None]),
        {},
        r"slot_mapping must have the axes \[\] of layer and then one for tokens, got \[1, 8\]",
    ),
    "scalar slot": (
        replaced(4, lambda a: a[0]),
        {},
        r"slot_mapping must have the axes \[\] of layer and then one for tokens, got \[\]",
    ),
    "dtype of the count": (
        operands(),
        {"results": {"num_dropped": SHAPE((), jnp.float32)}},
        r"num_dropped must be S32 as layer, got F32",
    ),
    "shape of the count": (
        operands(),
        {"results": {"num_dropped": SHAPE((2,), jnp.int32)}},
        r"num_dropped must have the shape \[\] of layer, got \[2\]",
    ),
    "rank of a pool": (
        replaced(0, lambda a: a[0, 0, 0]),
        {},
        r"key_pages must have 4 axes in layout NHD, got \[8\]",
    ),
    "rank of a layered pool": (
        replaced(1, lambda a: a[0, 0]),
        {"layered": True},
        r"key_pages must have 5 axes in layout NHD, got \[8, 4, 2, 8\]",
    ),
    "batch of a pool": (
        [*operands()[:2], *(np.stack([a, a]) for a in operands()[2:])],
        {"layer": np.int32([0, 0])},
        r"key_pages must have 5 axes in layout NHD, got \[8, 4, 2, 8\]",
    ),
    "size of a batch": (
        [np.stack([a, a]) for a in operands()],
        {"layer": np.int32([0, 0]), "results": {"num_dropped": SHAPE((3,), jnp.int32)}},
        r"num_dropped must have the shape \[2\] of layer, got \[3\]",
    ),
    "batch of one pool": (
        [operands()[0][None], *(np.stack([a, a]) for a in operands()[1:])],
        {"layer": np.int32([0, 0])},
        r"key_pages must have the batch axes \[2\] of layer, got \[1, 8, 4, 2, 8\]",
    ),
    "layout": (operands(), {"layout": "NDH"}, r"no layout NDH"),
    "results": (
        operands(),
        {"results": {"value_pages": None}},
        r"must have 2 pools as results, got 1",
    ),
    "operands": (
        operands(),
        {"layout": "FUSED"},
        r"must have 3 pools and rows, got 4",
    ),
    "dtype of keys": (
        replaced(2, lambda a: a.astype(np.float16)),
        {},
        r"key must be F32 as its pages, got F16",
    ),
    "dtype of values": (
        replaced(3, lambda a: a.astype(np.int32)),
        {},
        r"value must be F32 as its pages, got S32",
    ),
    "shape of keys": (
        replaced(2, lambda a: a[:4]),
        {},
        r"key must have the axes \[8\] of slot_mapping and then 2 for a row, got \[4, 2, 8\]",
    ),
    "row of values": (
        replaced(3, lambda a: a[..., :4]),
        {},
        r"value has 2 heads of 4 elements, but a token has 2 of 8 in layout NHD",
    ),
    "pages of values": (
        replaced(1, lambda a: a[:4]),
        {},
        r"value_pages must have the pages of key_pages, \[8, 4, 2, 8\], got \[4, 4, 2, 8\]",
    ),
    "packed rows": (
        INT4_ARRAYS,
        {},
        (
            r"the rows of key, 1 heads of 3 elements of 4 bits, do not start at whole bytes "
            r"in layout NHD"
        ),
    ),
    "dtype of the first result": (
        operands(),
        {"results": {"key_pages": SHAPE((8, 4, 2, 8), jnp.int32)}},
        r"a result must be F32 as key_pages, got S32",
    ),
    "shape of the second result": (
        operands(),
        {"results": {"value_pages": SHAPE((8, 4, 2, 4), jnp.float32)}},
        r"a result must have the shape \[8, 4, 2, 8\] of value_pages, got \[8, 4, 2, 4\]",
    ),
    "slot": (
        operands(slots=[40]),
        {"mode": "raise"},
        r"slot 40 at position 0 is out of range \[0, 32\)",
    ),
    "layer": (
        operands(),
        {"mode": "raise", "layer": 1},
        r"layer 1 is out of range \[0, 1\)",
    ),
}


@pytest.mark.parametrize("name", BAD_HANDLER_CALLS)
def test_handler_refuses(name):
    arrays, kwargs, text = BAD_HANDLER_CALLS[name]
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"\[write_kv\] " + text):
        call_handler(arrays, **kwargs)
