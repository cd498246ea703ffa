"""The ops on arrays that are sharded over a mesh of 8 devices: right, and each device in place."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import ops_oracle as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from pagedkv.ops import gather_pages, local_ids, paged_attention, write_kv
from pagedkv.testing import assert_in_place

LAYERS, PAGES, PAGE_SIZE, HEADS, DIM = 3, 64, 16, 4, 32
NUM_SLOTS = PAGES * PAGE_SIZE
AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit
KINDS = pytest.mark.parametrize("kind", [AUTO, EXPLICIT], ids=["auto", "explicit"])
# Of the first device, of the last, of others; padding, and three that are out of range.
SLOTS = np.int32([3, NUM_SLOTS - 1, -1, 515, NUM_SLOTS, 0, -7, 2**31 - 1])
HEADS_OVER_TP = P(None, None, None, "tp")
BOTH = P(None, "dp", None, "tp")
POOL_SPECS = [P(), HEADS_OVER_TP, P(None, "dp"), BOTH, P(None, ("tp", "dp"))]
COLLECTIVE = re.compile(
    r"= (?P<shape>\S+) (?P<op>all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)"
)


def mesh(kind=AUTO):
    return jax.make_mesh((2, 4), ("dp", "tp"), axis_types=(kind, kind))


def put(array, spec, kind=AUTO):
    return jax.device_put(array, NamedSharding(mesh(kind), spec))


def pools(dtype="float32", *, shape=(LAYERS, PAGES, PAGE_SIZE, HEADS, DIM), seed=0):
    rng = np.random.default_rng(seed)
    return [oracle.random_array(rng, shape, dtype) for _ in range(2)]


def rows(dtype="float32"):
    rng = np.random.default_rng(9)
    return [oracle.random_array(rng, (len(SLOTS), HEADS, DIM), dtype) for _ in range(2)]


def collectives(function, *args):
    program = function.lower(*args).compile().as_text()
    return [match["op"] + " " + match["shape"] for match in COLLECTIVE.finditer(program)]


def assert_placed(array, spec, kind):
    assert array.sharding.is_equivalent_to(NamedSharding(mesh(kind), spec), array.ndim)


# write_kv


def write_layers(keys, values, key, value, slots):
    """Each layer of a scan writes other keys."""

    def write(carry, layer):
        written = write_kv(*carry, key + layer.astype(key.dtype), value, slots, layer=layer)
        return written[:2], written.num_dropped

    return jax.lax.scan(write, (keys, values), jnp.arange(LAYERS, dtype=jnp.int32))


def expected_layers(keys, values, key, value, slots):
    counts = []
    for layer in range(LAYERS):
        shifted = key + key.dtype.type(layer)
        keys, values, num_dropped = oracle.write_kv(keys, values, shifted, value, slots, layer)
        counts.append(num_dropped)
    return keys, values, counts


@pytest.mark.parametrize("row_spec", [P(), P(None, "tp")], ids=str)
@pytest.mark.parametrize("pool_spec", POOL_SPECS, ids=str)
@KINDS
def test_write_kv_in_a_scan_is_in_place(kind, pool_spec, row_spec):
    step = jax.jit(write_layers, donate_argnums=(0, 1))
    arrays = [*pools("bfloat16"), *rows("bfloat16"), SLOTS]
    specs = (pool_spec, pool_spec, row_spec, row_spec, P())
    placed = [put(array, spec, kind) for array, spec in zip(arrays, specs, strict=True)]
    assert_in_place(step, *placed, pools=placed[:2])
    row_size = len(SLOTS) * HEADS * DIM
    for collective in collectives(step, *placed):  # of rows, never of a pool
        assert np.prod([int(n) for n in re.findall(r"[\d]+(?=[,\]])", collective)]) <= row_size
    (keys, values), num_dropped = step(*placed)
    for pool in (keys, values):
        assert_placed(pool, pool_spec, kind)
    assert num_dropped.is_fully_replicated
    *expected, counts = expected_layers(*arrays)
    oracle.assert_same(keys, expected[0])
    oracle.assert_same(values, expected[1])
    assert num_dropped.tolist() == counts == [3] * LAYERS


@pytest.mark.parametrize("pool_spec", [HEADS_OVER_TP, BOTH], ids=str)
@KINDS
def test_no_collective_at_all_where_rows_lie_as_the_pool(kind, pool_spec):
    step = jax.jit(write_layers, donate_argnums=(0, 1))
    specs = (pool_spec, pool_spec, P(None, "tp"), P(None, "tp"), P())
    arrays = [*pools(), *rows(), SLOTS]
    placed = [put(array, spec, kind) for array, spec in zip(arrays, specs, strict=True)]
    assert collectives(step, *placed) == []


@functools.cache
def jitted_write(kind, spec):
    """One program for each sharding."""
    small = (2, 8, 2, 4, 8)

    def run(arrays, slots, layer):
        placed = [put(array, spec, kind) for array in arrays]
        return write(*placed, *(row[:4, :, :8] for row in rows()), slots, layer)

    write = jax.jit(lambda *arrays: tuple(write_kv(*arrays[:-1], layer=arrays[-1])))
    return small, run


@settings(max_examples=60)
@given(
    kind=st.sampled_from([AUTO, EXPLICIT]),
    spec=st.sampled_from(POOL_SPECS),
    slots=st.lists(st.integers(-2, 18), min_size=4, max_size=4),
    layer=st.integers(-1, 2),
)
def test_write_kv_equals_the_loop(kind, spec, slots, layer):
    shape, run = jitted_write(kind, spec)
    arrays, slots = pools(shape=shape), np.int32(slots)
    actual = run(arrays, slots, np.int32(layer))
    new = [row[:4, :, :8] for row in rows()]
    expected = oracle.write_kv(*arrays, *new, slots, layer=layer)
    for pool, wanted in zip(actual[:2], expected[:2], strict=True):
        oracle.assert_same(pool, wanted)
    # The count on every device, not only on the one that int() asks.
    assert {int(shard.data) for shard in actual[2].addressable_shards} == {expected[2]}


def test_heads_may_lie_over_two_mesh_axes():
    spec = P(None, None, ("dp", "tp"))
    arrays = [a[0] for a in pools(shape=(1, PAGES, PAGE_SIZE, 8, DIM))]
    new = [np.concatenate(rows(), axis=1)] * 2
    step = jax.jit(lambda *a: tuple(write_kv(*a)), donate_argnums=(0, 1))
    placed = [put(pool, spec) for pool in arrays]
    assert_in_place(step, *placed, *new, SLOTS, pools=placed)
    actual, expected = step(*placed, *new, SLOTS), oracle.write_kv(*arrays, *new, SLOTS)
    oracle.assert_same(actual[0], expected[0])
    assert int(actual[2]) == expected[2]


@KINDS
def test_eager_calls_keep_the_sharding(kind):
    arrays = pools()
    placed = [put(pool, BOTH, kind) for pool in arrays]
    written = write_kv(*placed, *rows(), SLOTS, layer=1)
    assert_placed(written.key_pages, BOTH, kind)
    oracle.assert_same(written.value_pages, oracle.write_kv(*arrays, *rows(), SLOTS, layer=1)[1])


def test_cond_and_remat_are_in_place():
    @jax.checkpoint
    def write(keys, values, key, value):
        return tuple(write_kv(keys, values, key, value, SLOTS, layer=1)[:2])

    def step(keys, values, key, value, is_on):
        return jax.lax.cond(is_on, write, lambda k, v, *_: (k, v), keys, values, key, value)

    arrays = [*pools(), *rows()]
    placed = [put(array, BOTH) for array in arrays[:2]] + [put(a, P()) for a in arrays[2:]]
    jitted = jax.jit(step, donate_argnums=(0, 1))
    assert_in_place(jitted, *placed, True, pools=placed[:2])
    assert not any("all-gather" in text for text in collectives(jitted, *placed, True))
    oracle.assert_same(jitted(*placed, True)[0], oracle.write_kv(*arrays, SLOTS, layer=1)[0])


@KINDS
def test_differentiation_is_refused_on_a_mesh_too(kind):
    placed = [put(pool, BOTH, kind) for pool in pools()]
    with pytest.raises(ValueError, match=r"\[write_kv\] has no derivative"):
        jax.grad(lambda key: write_kv(*placed, key, rows()[1], SLOTS, layer=0)[0].sum())(rows()[0])


# gather_pages


PAGE_IDS = np.int32([[5, -1, PAGES], [0, PAGES - 1, -2], [40, 40, 31]])


@pytest.mark.parametrize("pool_spec", POOL_SPECS, ids=str)
@KINDS
def test_gather_pages_sums_rows_and_moves_no_pool(kind, pool_spec):
    pool = pools("bfloat16")[0]
    gather = jax.jit(lambda *arrays: tuple(gather_pages(*arrays, layer=2)))
    placed = put(pool, pool_spec, kind), put(PAGE_IDS, P(), kind)
    actual, expected = gather(*placed), oracle.gather_pages(pool, PAGE_IDS, layer=2)
    oracle.assert_same(actual[0], expected[0])
    assert int(actual[1]) == expected[1] == 2
    spec = (*pool_spec, *[None] * 5)
    heads = 1 if spec[3] else HEADS
    moved = [f"all-reduce u8[3,3,{PAGE_SIZE},{heads},{DIM},2]"] * bool(spec[1])
    assert [text.partition("{")[0] for text in collectives(gather, *placed)] == moved


@pytest.mark.parametrize(
    "dtype",
    ["float32", "bfloat16", "float16", "int8", "float8_e4m3fn", "int4", "bool", "complex64"],
)
def test_gathered_rows_keep_their_bits(dtype):
    pool = oracle.random_array(np.random.default_rng(0), (8, 4, 2, 4), dtype)
    if dtype in ("float32", "bfloat16", "float16", "float8_e4m3fn"):
        pool[1], pool[6] = -0.0, np.nan
        pool[2] = -pool[2]
    rows, _ = jax.jit(gather_pages)(put(pool, P("tp")), np.int32([6, 1, 2, -1, 5]))
    expected, _ = oracle.gather_pages(pool, np.int32([6, 1, 2, -1, 5]))
    assert np.asarray(rows).tobytes() == expected.tobytes()


# paged_attention


def attention_batch():
    rng = np.random.default_rng(1)
    keys, values = (
        rng.standard_normal((LAYERS, PAGES, PAGE_SIZE, HEADS, DIM), np.float32) for _ in range(2)
    )
    query = rng.standard_normal((5, 2 * HEADS, DIM), np.float32)
    table = np.int32([[1, 40, 0], [63, 5, 6], [0, 0, 0]])
    return query, keys, values, table, np.int32([0, 3, 4, 4]), np.int32([20, 45, 0])


@pytest.mark.parametrize("query_spec", [P(), P(None, "tp")], ids=str)
@KINDS
def test_paged_attention_over_heads_moves_no_pool(kind, query_spec):
    arrays = attention_batch()
    attend = jax.jit(lambda *a: tuple(paged_attention(*a, layer=1)))
    specs = (query_spec, HEADS_OVER_TP, HEADS_OVER_TP, P(), P(), P())
    placed = [put(array, spec, kind) for array, spec in zip(arrays, specs, strict=True)]
    actual, expected = attend(*placed), oracle.paged_attention(*arrays, layer=1)
    np.testing.assert_allclose(np.asarray(actual[0]), expected[0], rtol=2e-5, atol=2e-5)
    assert int(actual[1]) == expected[1]
    assert_placed(actual[0], P(None, "tp"), kind)
    assert collectives(attend, *placed) == []


@KINDS
def test_paged_attention_refuses_sharded_pages(kind):
    query, keys, values, *ids = attention_batch()
    with pytest.raises((ValueError, jax.errors.JaxRuntimeError)) as error:
        paged_attention(query, put(keys, BOTH, kind), put(values, BOTH, kind), *ids, layer=1)
    assert re.search(
        r"\[paged_attention\] key_pages must not be sharded over its pages, got pages over 'dp'; "
        r"shard the requests as well, with jax.shard_map, and give each shard the ids",
        str(error.value),
    )


# vmap


BATCH = 4


def batched_pools():
    return [np.stack([pools(seed=b)[i] for b in range(BATCH)]) for i in range(2)]


@pytest.mark.parametrize("in_axes", [(0, 0, 0, 0, 0), (0, 0, None, None, 0)], ids=str)
@pytest.mark.parametrize(
    "pool_spec", [P(None, None, "dp", None, "tp"), P("dp", None, None, None, "tp")], ids=str
)
def test_vmap_of_write_kv_is_in_place(pool_spec, in_axes):
    arrays = batched_pools()
    arrays += rows() if in_axes[2] is None else [np.stack([row] * BATCH) for row in rows()]
    arrays.append(np.stack([np.roll(SLOTS, b) for b in range(BATCH)]))
    step = jax.jit(
        jax.vmap(lambda *a: tuple(write_kv(*a, layer=1)), in_axes), donate_argnums=(0, 1)
    )
    placed = [put(a, pool_spec if i < 2 else P()) for i, a in enumerate(arrays)]
    assert_in_place(step, *placed, pools=placed[:2])
    assert collectives(step, *placed) == []
    actual = step(*placed)
    assert_placed(actual[0], pool_spec, AUTO)
    for b in range(BATCH):
        one = [a if axis is None else a[b] for a, axis in zip(arrays, in_axes, strict=True)]
        expected = oracle.write_kv(*one, layer=1)
        for result, wanted in zip(actual[:2], expected[:2], strict=True):
            oracle.assert_same(result[b], wanted)
        assert int(actual[2][b]) == expected[2]


def test_vmap_on_an_explicit_mesh_is_in_place():
    arrays = batched_pools()
    spec = P(None, None, "dp", None, "tp")
    step = jax.jit(
        jax.vmap(lambda *a: tuple(write_kv(*a, *rows(), SLOTS, layer=1))), donate_argnums=(0, 1)
    )
    placed = [put(pool, spec, EXPLICIT) for pool in arrays]
    assert_in_place(step, *placed, pools=placed)
    actual = step(*placed)
    for b in range(BATCH):
        expected = oracle.write_kv(*(a[b] for a in arrays), *rows(), SLOTS, layer=1)
        oracle.assert_same(actual[0][b], expected[0])


@pytest.mark.parametrize("ids_spec", [P(), P("tp"), P("dp")], ids=str)
def test_vmap_of_vmap_of_gather_reads_a_pool_that_is_not_mapped(ids_spec):
    ids = np.random.default_rng(0).integers(-2, PAGES + 2, (BATCH, 2, 3)).astype(np.int32)
    one = functools.partial(gather_pages, layer=1)
    gather = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (None, 0)))
    pool = pools()[0]
    placed = put(pool, BOTH), put(ids, ids_spec)
    actual = gather(*placed)
    expected = oracle.gather_pages(pool, ids, layer=1)
    oracle.assert_same(actual.rows, expected[0])
    assert int(actual.num_dropped.sum()) == expected[1]
    pool_shape = f"{LAYERS},{PAGES // 2},"
    assert not any(pool_shape in text for text in collectives(gather, *placed))


# Refusals. On Auto meshes XLA's partitioner passes them on, after a traceback


@pytest.mark.parametrize(
    ("specs", "text"),
    [
        (
            [P(None, None, None, None, "tp")] * 2,
            r"key_pages may be sharded over pages and kv_heads, got head_dim over 'tp'",
        ),
        (
            [P(None, None, ("dp", "tp"))] * 2,
            r"key_pages may be sharded over pages and kv_heads, got page_size over 'dp' and 'tp'",
        ),
        (
            [P(None, "dp"), P()],
            r"value_pages must be sharded as the first pool, pages over 'dp', got no mesh axis",
        ),
    ],
)
@KINDS
def test_refuses_pools_that_it_would_have_to_gather(kind, specs, text):
    placed = [put(pool, spec, kind) for pool, spec in zip(pools(), specs, strict=True)]
    with pytest.raises((ValueError, jax.errors.JaxRuntimeError)) as error:
        write_kv(*placed, *rows(), SLOTS, layer=1)
    assert re.search(r"\[write_kv\] " + text, str(error.value))
    assert not any(pool.is_deleted() for pool in placed)


def test_refuses_pages_that_do_not_divide():
    @jax.jit
    def step(*arrays):
        uneven = jax.lax.with_sharding_constraint(arrays[:2], NamedSharding(mesh(), P("tp")))
        return write_kv(*uneven, *arrays[2:])

    with pytest.raises(jax.errors.JaxRuntimeError) as error:
        step(*pools(shape=(6, PAGE_SIZE, HEADS, DIM)), *rows(), SLOTS)
    assert re.search(
        r"\[write_kv\] pages of key_pages must be a multiple of 4 to be sharded over 'tp', got 6",
        str(error.value),
    )


@KINDS
def test_refuses_a_shard_map_over_some_mesh_axes(kind):
    placed = [put(pool, BOTH, kind) for pool in pools()]
    spec = P(None, "dp")
    step = jax.shard_map(
        lambda *a: tuple(write_kv(*a, *rows(), SLOTS, layer=1)[:2]),
        mesh=mesh(kind),
        in_specs=spec,
        out_specs=spec,
        axis_names={"dp"},
    )
    text = r"\[write_kv\] inside jax.shard_map all mesh axes must be manual, got AbstractMesh"
    with pytest.raises(ValueError, match=text):
        jax.jit(step)(*placed)


# Inside shard_map


@pytest.mark.parametrize("axis_name", ["dp", ("tp", "dp")], ids=str)
@KINDS
def test_local_ids_in_shard_map_write_what_the_whole_pool_would_get(kind, axis_name):
    pool_spec = P(None, axis_name)

    def local(keys, values, key, value, slots):
        own = local_ids(slots, keys.shape[1] * keys.shape[2], axis_name)
        pools, num_dropped = write_layers(keys, values, key, value, own)
        return *pools, jax.lax.pmax(num_dropped, axis_name)

    specs = (pool_spec, pool_spec, P(), P(), P())
    step = jax.jit(
        jax.shard_map(
            local, mesh=mesh(kind), in_specs=specs, out_specs=(pool_spec, pool_spec, P())
        ),
        donate_argnums=(0, 1),
    )
    arrays = [*pools(), *rows(), SLOTS]
    placed = [put(array, spec, kind) for array, spec in zip(arrays, specs, strict=True)]
    assert_in_place(step, *placed, pools=placed[:2])
    *actual, num_dropped = step(*placed)
    *expected, counts = expected_layers(*arrays)
    for pool, wanted in zip(actual, expected, strict=True):
        oracle.assert_same(pool, wanted)
    assert num_dropped.tolist() == counts


@KINDS
def test_scan_of_write_and_attention_with_rank_local_ids_is_in_place(kind):
    """Requests and pages over dp, heads over tp: what `paged_attention` says to do."""
    query, keys, values, *_ = attention_batch()
    key, value = (np.stack([row[0], row[1]]) for row in rows())
    query = query[:2]
    table = np.int32([[1, 2], [31, 3]])  # of each rank's own 32 pages
    lens = np.int32([17, 20])
    slots = np.int32([2 * PAGE_SIZE, 3 * PAGE_SIZE + 3])

    def local(keys, values, query, key, value, slots, table, lens):
        def layer(carry, index):
            pools, query = carry
            pools = write_kv(*pools, key, value, slots, layer=index)[:2]
            starts = jnp.arange(query.shape[0] + 1, dtype=jnp.int32)
            output, _ = paged_attention(query, *pools, table, starts, lens, layer=index)
            return (pools, output + jax.lax.pmean(output, "tp")), None

        carry = ((keys, values), query)
        (pools, output), _ = jax.lax.scan(layer, carry, jnp.arange(LAYERS, dtype=jnp.int32))
        return *pools, output

    heads = P("dp", "tp")
    specs = (BOTH, BOTH, heads, heads, heads, P("dp"), P("dp"), P("dp"))
    step = jax.jit(
        jax.shard_map(local, mesh=mesh(kind), in_specs=specs, out_specs=(BOTH, BOTH, heads)),
        donate_argnums=(0, 1),
    )
    arrays = [keys, values, query, key, value, slots, table, lens]
    placed = [put(array, spec, kind) for array, spec in zip(arrays, specs, strict=True)]
    assert_in_place(step, *placed, pools=placed[:2])
    assert {text.split()[0] for text in collectives(step, *placed)} == {"all-reduce"}
    actual = step(*placed)
    for rank in range(2):
        own = np.s_[:, 32 * rank : 32 * rank + 32]
        expected, out = [keys[own], values[own]], query[rank : rank + 1]
        mine = np.s_[rank : rank + 1]
        for index in range(LAYERS):
            *expected, _ = oracle.write_kv(*expected, key[mine], value[mine], slots[mine], index)
            out, _ = oracle.paged_attention(
                out, *expected, table[mine], np.int32([0, 1]), lens[mine], layer=index
            )
            tiles = out.reshape(1, 4, 2, DIM)  # of the 4 devices, 2 query heads each
            out = (tiles + tiles.mean(1, keepdims=True)).reshape(out.shape)
        oracle.assert_same(np.asarray(actual[0])[own], expected[0])
        np.testing.assert_allclose(np.asarray(actual[2])[mine], out, rtol=2e-4, atol=2e-4)


@functools.cache
def compiled_local_ids(num_local):
    return jax.jit(
        jax.shard_map(
            lambda ids: local_ids(ids, num_local, ("dp", "tp"))[None],
            mesh=mesh(),
            in_specs=P(),
            out_specs=P(("dp", "tp")),
        )
    )


@given(
    ids=st.lists(st.integers(-3, 40), min_size=8, max_size=8).map(np.int32),
    num_local=st.integers(0, 4),
)
def test_local_ids_equal_the_loop(ids, num_local):
    def expected(rank):
        for i in map(int, ids):
            if 0 <= i < 8 * num_local:
                yield i % num_local if i // num_local == rank else -1
            else:
                yield i

    assert compiled_local_ids(num_local)(ids).tolist() == [
        list(expected(rank)) for rank in range(8)
    ]


@pytest.mark.parametrize(
    ("ids", "num_local", "error", "text"),
    [
        ([1], 4, TypeError, r"ids must be an array, got list"),
        (np.int64([1]), 4, TypeError, r"ids must be int32, got int64"),
        (
            np.int32([1]),
            2**30,
            ValueError,
            r"all devices .* at most 2147483647 ids, .* got 4294967296",
        ),
        (np.int32([1]), -1, ValueError, r"num_local must be at least 0, got -1"),
        (np.int32([1]), 2.0, TypeError, r"num_local must be int, got float"),
    ],
)
def test_local_ids_refuses(ids, num_local, error, text):
    def local(_):
        return local_ids(ids, num_local, "tp")

    with pytest.raises(error, match=r"\[local_ids\] " + text):
        jax.shard_map(local, mesh=mesh(), in_specs=P(), out_specs=P("tp"))(np.int32([0]))
