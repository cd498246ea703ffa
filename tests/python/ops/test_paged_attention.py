"""paged_attention against plain loops in float64, on every instruction set, and what it refuses."""

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
from pagedkv import KVLayout, _ffi_cpu
from pagedkv.kv_pool import KVPool
from pagedkv.ops import (
    PagedAttention,
    _reference,
    gather_pages,
    paged_attention,
    register_targets,
    write_kv,
)
from pagedkv.testing import assert_in_place

TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-2, "float16": 3e-3}
ISAS = _ffi_cpu.attention_instruction_sets()
SHAPE = jax.ShapeDtypeStruct
QUERY, KEYS, VALUES, TABLE, STARTS, LENS = range(6)


class Batch:
    """A ragged batch over a random pool. Requests are (queries, context), pages never shared."""

    def __init__(
        self,
        requests=((1, 9), (5, 5), (0, 3), (3, 12)),
        *,
        dtype="float32",
        kv_heads=2,
        group=3,
        head_dim=8,
        value_dim=None,
        page_size=4,
        num_layers=2,
        num_padding=2,
        seed=0,
    ):
        rng = np.random.default_rng(seed)
        value_dim = value_dim or head_dim
        lengths = [-(-context // page_size) for _, context in requests]
        num_pages = sum(lengths) + 3
        starts = np.concatenate([[0], np.cumsum([queries for queries, _ in requests])])

        def normal(*shape):
            return rng.standard_normal(shape).astype(np.dtype(dtype))

        self.query = normal(starts[-1] + num_padding, kv_heads * group, head_dim)
        self.keys = normal(num_layers, num_pages, page_size, kv_heads, head_dim)
        self.values = normal(num_layers, num_pages, page_size, kv_heads, value_dim)
        self.page_table = np.zeros((len(requests), max([1, *lengths]) + 1), np.int32)
        ids = iter(1 + rng.permutation(num_pages - 1))
        for row, length in zip(self.page_table, lengths, strict=True):
            row[:length] = [next(ids) for _ in range(length)]
        self.starts = starts.astype(np.int32)
        self.lens = np.array([context for _, context in requests], np.int32)

    @property
    def arrays(self):
        return self.query, self.keys, self.values, self.page_table, self.starts, self.lens


ALL_TOKENS = 2**31 - 1


def mask_operands(window=ALL_TOKENS, chunk=ALL_TOKENS, sink_tokens=0):
    return [
        np.asarray(value, np.int32 if isinstance(value, int) else None)
        for value in (window, chunk, sink_tokens)
    ]


def call_handler(
    batch_arrays,
    *,
    layer=0,
    isa="best",
    mode="drop",
    output=None,
    count=None,
    sinks=None,
    scales=(),
    layout="NHD",
    group_size=None,
    soft_cap=0.0,
    **mask,
):
    """Calls the FFI target without the checks of Python."""
    register_targets()
    query, keys, values, *batch = batch_arrays
    if output is None:
        output = SHAPE((*query.shape[:-1], values.shape[-1]), query.dtype)
    if count is None:
        count = SHAPE((), jnp.int32)
    if group_size is None:
        group_size = query.shape[-2] // keys.shape[-2]
    layer = np.asarray(layer, np.int32 if isinstance(layer, int) else None)
    sinks = np.zeros([0], np.float32) if sinks is None else sinks
    function = handler(output, count, isa, mode, layout, group_size, soft_cap)
    pools = [pool for pool in (keys, values) if pool is not None]
    return jax.block_until_ready(
        function(query, *batch, layer, *mask_operands(**mask), sinks, *pools, *scales)
    )


@functools.cache
def handler(output, count, isa, mode, layout, group_size, soft_cap):
    attributes = {"layered": True, "mode": mode, "instruction_set": isa, "layout": layout}

    @jax.jit
    def call(query, *arrays):
        function = jax.ffi.ffi_call("pagedkv.paged_attention.v2", (output, count))
        scale = np.float32(query.shape[-1] ** -0.5)
        return function(
            query,
            *arrays,
            scale=scale,
            group_size=group_size,
            soft_cap=np.float32(soft_cap),
            **attributes,
        )

    return call


def call_reference(arrays, *, layer=0, scale=None, soft_cap=0.0, sinks=None, **mask):
    query, keys, values, *batch = arrays
    sinks = np.zeros([0], np.float32) if sinks is None else sinks
    return reference(
        query,
        *batch,
        jnp.int32(layer),
        *mask_operands(**mask),
        sinks,
        *(keys, values),
        layout=KVLayout.NHD,
        layered=True,
        group_size=query.shape[1] // keys.shape[3],
        value_dim=values.shape[-1],
        scale=query.shape[-1] ** -0.5 if scale is None else scale,
        soft_cap=soft_cap,
    )


reference = jax.jit(
    _reference.paged_attention,
    static_argnames=("layout", "layered", "group_size", "value_dim", "scale", "soft_cap"),
)


def assert_attends(actual, expected):
    output, num_dropped = actual
    assert output.dtype == expected[0].dtype
    tolerance = TOLERANCE[str(output.dtype)]
    np.testing.assert_allclose(
        np.asarray(output, np.float64), np.asarray(expected[0], np.float64), tolerance, tolerance
    )
    assert int(num_dropped) == expected[1]


# Values


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("head_dim", [1, 7, 16, 64, 67, 128])
def test_equals_the_loop_on_every_instruction_set(isa, dtype, head_dim):
    batch = Batch(((1, 70), (40, 75), (0, 3)), dtype=dtype, head_dim=head_dim, value_dim=24)
    expected = oracle.paged_attention(*batch.arrays, layer=1)
    assert_attends(call_handler(batch.arrays, layer=1, isa=isa), expected)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_equals_the_loop(dtype, transform):
    batch = Batch(dtype=dtype)
    expected = oracle.paged_attention(*batch.arrays, layer=1)
    assert_attends(transform(functools.partial(paged_attention, layer=1))(*batch.arrays), expected)
    query, keys, values, *ids = batch.arrays
    assert_attends(transform(paged_attention)(query, keys[1], values[1], *ids), expected)
    assert_attends(call_reference(batch.arrays, layer=1), expected)


def test_scale_is_a_factor_of_the_scores():
    batch = Batch()
    expected = oracle.paged_attention(*batch.arrays, scale=0.1)
    assert_attends(paged_attention(*batch.arrays, layer=0, scale=0.1), expected)
    assert_attends(call_reference(batch.arrays, scale=0.1), expected)


queries_and_context = st.tuples(st.integers(0, 20), st.integers(0, 50)).map(
    lambda pair: (pair[0], pair[0] + pair[1])
)


# Each shape is compiled anew, so examples are few.
@settings(max_examples=25, deadline=None)
@given(
    requests=st.lists(queries_and_context, min_size=1, max_size=5),
    dtype=st.sampled_from(sorted(TOLERANCE)),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 9),
    head_dim=st.one_of(st.integers(1, 20), st.sampled_from([32, 64])),
    value_dim=st.integers(1, 20),
    page_size=st.one_of(st.integers(1, 7), st.sampled_from([16, 64])),
    isa=st.sampled_from(ISAS),
)
def test_any_ragged_batch_equals_the_loop(requests, dtype, isa, **sizes):
    batch = Batch(tuple(requests), dtype=dtype, **sizes)
    expected = oracle.paged_attention(*batch.arrays)
    assert_attends(call_handler(batch.arrays, isa=isa), expected)


@settings(max_examples=5, deadline=None)
@given(requests=st.lists(queries_and_context, min_size=1, max_size=5), group=st.integers(1, 4))
def test_reference_equals_the_loop_for_any_ragged_batch(requests, group):
    batch = Batch(tuple(requests), group=group)
    assert_attends(call_reference(batch.arrays), oracle.paged_attention(*batch.arrays))


def test_large_scores_neither_overflow_nor_lose_the_rest():
    """The maximum rises from page to page, so that all that was summed shrinks to nothing."""
    batch = Batch(((1, 200),), kv_heads=1, group=1, head_dim=1)
    batch.query[0] = 1
    batch.keys[0, batch.page_table[0, :50], :, 0, 0] = np.arange(200).reshape(50, 4) * 40.0
    expected = oracle.paged_attention(*batch.arrays)
    assert_attends(paged_attention(*batch.arrays, layer=0), expected)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_token_has_the_same_bits_in_any_batch(dtype):
    """Alone or in a chunk, on one thread or on all: prefill and decode agree to the last bit."""
    whole = Batch(((300, 300), (300, 300)), dtype=dtype, head_dim=64, page_size=16, num_padding=0)
    chunk = np.asarray(paged_attention(*whole.arrays, layer=0).output)
    query, keys, values, page_table, _, _ = whole.arrays
    for token in (0, 31, 32, 123, 299):
        one = paged_attention(
            *(query[token : token + 1], keys, values, page_table[:1]),
            *(np.int32([0, 1]), np.int32([token + 1])),
            layer=0,
        )
        np.testing.assert_array_equal(one.output[0], chunk[token])


# What is not there


def test_tokens_of_no_request_are_zeros():
    batch = Batch(((2, 4),), num_padding=3)
    output = np.asarray(paged_attention(*batch.arrays, layer=0).output)
    assert output[:2].all()
    assert not output[2:].any()


def poison(batch):
    """NaN wherever no request has a token."""
    page_size = batch.keys.shape[2]
    used = np.zeros(batch.keys.shape[:3], bool)
    for row, context in zip(batch.page_table, batch.lens, strict=True):
        for position in range(context):
            used[:, row[position // page_size], position % page_size] = True
    batch.keys[~used] = np.nan
    batch.values[~used] = np.nan


@pytest.mark.parametrize("isa", ISAS)
def test_nan_beyond_the_context_does_not_leak(isa):
    batch = Batch()
    expected = oracle.paged_attention(*batch.arrays)
    poison(batch)
    assert_attends(call_handler(batch.arrays, isa=isa), expected)
    assert_attends(call_reference(batch.arrays), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_nan_in_a_later_token_does_not_leak_into_earlier_ones(isa):
    batch = Batch(((20, 20),), page_size=16, num_padding=0)
    expected, _ = oracle.paged_attention(*batch.arrays)
    batch.keys[0, batch.page_table[0, 0], 7] = np.nan
    batch.values[0, batch.page_table[0, 0], 7] = np.nan
    output = np.asarray(call_handler(batch.arrays, isa=isa)[0])
    np.testing.assert_allclose(output[:7], expected[:7], 2e-5, 2e-5)
    assert np.isnan(output[7:]).all()


BAD_PAGES = [-1, -(2**31), 2**31 - 1, 100]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("page", BAD_PAGES)
def test_a_page_out_of_range_is_left_out_and_counted(page, isa):
    batch = Batch()
    batch.page_table[0, 1] = page  # of tokens 4 to 7 of 9
    batch.page_table[3, :] = page  # of all its tokens
    batch.page_table[2, 0] = page  # of a request without queries
    expected = oracle.paged_attention(*batch.arrays)
    assert expected[1] == 1 + 3
    assert_attends(call_handler(batch.arrays, isa=isa), expected)
    assert_attends(call_reference(batch.arrays), expected)
    assert not np.asarray(expected[0])[6:9].any()


@pytest.mark.parametrize("layer", [-1, 2, 2**31 - 1, -(2**31)])
def test_a_layer_out_of_range_has_no_pages(layer):
    batch = Batch()
    output, num_dropped = paged_attention(*batch.arrays, layer=jnp.int32(layer))
    assert not output.any()
    assert int(num_dropped) == 3 + 2 + 3
    assert_attends(call_reference(batch.arrays, layer=layer), (output, int(num_dropped)))


BAD_BATCHES = {
    "start decreases": ("starts", [0, 6, 1, 6, 9], 2),
    "requests overlap": ("starts", [0, 6, 2, 4, 9], 3),
    "start below 0": ("starts", [-1, 1, 6, 6, 9], 1),
    "start far below 0": ("starts", [-(2**31), 2**31 - 1, 6, 6, 9], 4),
    "end past the tokens": ("starts", [0, 1, 6, 6, 12], 1),
    "context below 0": ("lens", [9, -1, 3, 12], 1),
    "context far below 0": ("lens", [9, -(2**31), 3, 12], 1),
    "context below the queries": ("lens", [9, 4, 3, 12], 1),
    "context past the table": ("lens", [9, 5, 3, 17], 1),
    "context far past the table": ("lens", [9, 5, 3, 2**31 - 1], 1),
    "context of no queries": ("lens", [9, 5, -3, 12], 1),
}


@pytest.mark.parametrize("name", BAD_BATCHES)
def test_a_request_that_cannot_be_is_left_out_and_counted(name):
    attribute, values, num_dropped = BAD_BATCHES[name]
    batch = Batch()
    setattr(batch, attribute, np.int32(values))
    expected = oracle.paged_attention(*batch.arrays)
    assert expected[1] == num_dropped
    assert_attends(paged_attention(*batch.arrays, layer=0), expected)
    assert_attends(call_reference(batch.arrays), expected)


wild = st.one_of(st.integers(-2, 20), st.sampled_from([-(2**31), 2**31 - 1]))


@settings(deadline=None)
@given(
    starts=st.lists(wild, min_size=4, max_size=4),
    lens=st.lists(wild, min_size=3, max_size=3),
    page_table=st.lists(wild, min_size=12, max_size=12),
    layer=wild,
    window=wild,
    isa=st.sampled_from(ISAS),
)
def test_nothing_on_the_device_is_trusted(starts, lens, page_table, layer, window, isa):
    batch = Batch(((4, 9), (5, 9), (2, 3)))
    batch.starts, batch.lens = np.int32(starts), np.int32(lens)
    batch.page_table = np.int32(page_table).reshape(3, 4)
    expected = oracle.paged_attention(*batch.arrays, layer=layer, window=window)
    assert_attends(call_handler(batch.arrays, layer=layer, window=window, isa=isa), expected)
    assert_attends(call_reference(batch.arrays, layer=layer, window=window), expected)


@pytest.mark.parametrize(
    "sizes",
    [(0, 2, 2, 4, 1, 4, 1, 1), (3, 2, 0, 4, 1, 4, 1, 1), (3, 2, 2, 0, 1, 4, 1, 1),
     (3, 2, 2, 4, 1, 4, 0, 1), (3, 2, 2, 4, 1, 4, 1, 0), (3, 0, 2, 4, 1, 4, 1, 1)],
    ids=["tokens", "heads", "pages", "page_size", "requests", "width"],
)  # fmt: skip
def test_arrays_may_be_empty(sizes):
    tokens, heads, pages, page_size, kv_heads, dim, requests, width = sizes
    keys = np.ones((pages, page_size, kv_heads, dim), np.float32)
    output, num_dropped = paged_attention(
        np.ones((tokens, heads, dim), np.float32),
        *(keys, keys, np.zeros((requests, width), np.int32)),
        *(np.zeros(requests + 1, np.int32), np.zeros(requests, np.int32)),
    )
    assert output.shape == (tokens, heads, dim)
    assert not output.any()
    assert int(num_dropped) == 0


# Windows

# Around the borders of pages (4), tiles (32) and requests.
WINDOWS = [1, 2, 3, 4, 5, 31, 32, 33, 36, 63, 74, 75, 76, 1000]


def forget(batch, window):
    """Page 0, full of NaN, where no query of a request sees a token: as a manager gives pages back."""
    page_size = batch.keys.shape[2]
    num_queries = np.diff(batch.starts)
    for row, context, queries in zip(batch.page_table, batch.lens, num_queries, strict=True):
        row[: max(0, context - queries - window + 1) // page_size] = 0
    batch.keys[:, 0] = batch.values[:, 0] = np.nan


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("window", WINDOWS)
def test_a_window_equals_the_loop_on_every_instruction_set(window, isa, dtype):
    batch = Batch(((1, 70), (40, 75), (0, 3), (1, 4), (7, 33)), dtype=dtype, head_dim=24)
    expected = oracle.paged_attention(*batch.arrays, window=window)
    forget(batch, window)
    assert_attends(call_handler(batch.arrays, window=window, isa=isa), expected)
    assert_attends(call_reference(batch.arrays, window=window), expected)


@settings(max_examples=25, deadline=None)
@given(
    requests=st.lists(queries_and_context, min_size=1, max_size=4),
    window=st.integers(1, 80),
    dtype=st.sampled_from(sorted(TOLERANCE)),
    group=st.integers(1, 9),
    page_size=st.one_of(st.integers(1, 7), st.sampled_from([16, 64])),
    isa=st.sampled_from(ISAS),
)
def test_any_window_over_any_ragged_batch_equals_the_loop(requests, window, dtype, isa, **sizes):
    batch = Batch(tuple(requests), dtype=dtype, **sizes)
    expected = oracle.paged_attention(*batch.arrays, window=window)
    forget(batch, window)
    assert_attends(call_handler(batch.arrays, window=window, isa=isa), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_pages_left_of_the_window_are_neither_read_nor_counted(isa):
    batch = Batch(((1, 70), (3, 40)), page_size=4)
    expected = oracle.paged_attention(*batch.arrays, window=9)
    batch.page_table[0, : (70 - 9) // 4] = -1
    batch.page_table[1, : (38 - 9) // 4] = 2**31 - 1
    for mode in ("drop", "raise"):
        assert_attends(call_handler(batch.arrays, window=9, isa=isa, mode=mode), expected)
    assert_attends(call_reference(batch.arrays, window=9), expected)
    batch.page_table[0, (70 - 9) // 4] = -1  # of tokens 60 to 63, of which 61 is the first seen
    expected = oracle.paged_attention(*batch.arrays, window=9)
    assert expected[1] == 1
    assert_attends(call_handler(batch.arrays, window=9, isa=isa), expected)
    assert_attends(call_reference(batch.arrays, window=9), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_nan_in_a_token_leaks_only_where_the_window_reaches(isa):
    batch = Batch(((40, 40),), page_size=16, num_padding=0)
    expected, _ = oracle.paged_attention(*batch.arrays, window=6)
    batch.keys[0, batch.page_table[0, 0], 7] = np.nan
    batch.values[0, batch.page_table[0, 0], 7] = np.nan
    output = np.asarray(call_handler(batch.arrays, window=6, isa=isa)[0])
    sees_it = (np.arange(40) >= 7) & (np.arange(40) < 7 + 6)
    assert np.isnan(output[sees_it]).all()
    np.testing.assert_allclose(output[~sees_it], expected[~sees_it], 2e-5, 2e-5)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("window", [5, 32, 70, 301])
def test_a_token_has_the_same_bits_in_any_batch_with_a_window(window, dtype):
    whole = Batch(((300, 300),), dtype=dtype, head_dim=64, page_size=16, num_padding=0)
    attend = functools.partial(paged_attention, layer=0, sliding_window=window)
    chunk = np.asarray(attend(*whole.arrays).output)
    query, keys, values, page_table, _, _ = whole.arrays
    for first, last in ((0, 1), (31, 32), (32, 40), (123, 124), (250, 300)):
        forgotten = page_table.copy()
        forgotten[0, : max(0, first - window + 1) // 16] = 0
        some = attend(
            *(query[first:last], keys, values, forgotten),
            *(np.int32([0, last - first]), np.int32([last])),
        )
        np.testing.assert_array_equal(some.output, chunk[first:last])


def test_a_window_as_long_as_the_context_is_no_window():
    batch = Batch(((20, 75),))
    plain = np.asarray(paged_attention(*batch.arrays, layer=0).output)
    for window in (75, 2**31 - 1, 2**40):
        output = paged_attention(*batch.arrays, layer=0, sliding_window=window).output
        np.testing.assert_array_equal(output, plain)


@pytest.mark.parametrize("window", [0, -1, -(2**31)])
def test_a_window_below_one_drops_every_request(window):
    batch = Batch()
    expected = oracle.paged_attention(*batch.arrays, window=window)
    assert expected[1] == 4
    actual = paged_attention(*batch.arrays, layer=0, sliding_window=jnp.int32(window))
    assert_attends(actual, expected)
    assert_attends(call_reference(batch.arrays, window=window), expected)


def test_layers_of_one_scan_may_differ_in_their_windows():
    batch = Batch()
    windows = jnp.int32([3, 2**31 - 1])

    @jax.jit
    def attend(*arrays):
        def body(_, layer):
            return None, paged_attention(*arrays, layer=layer, sliding_window=windows[layer])

        return jax.lax.scan(body, None, jnp.arange(2, dtype=jnp.int32))[1]

    both = attend(*batch.arrays)
    for layer, window in enumerate([3, None]):
        expected = oracle.paged_attention(*batch.arrays, layer=layer, window=window)
        assert_attends((both.output[layer], both.num_dropped[layer]), expected)


# Transforms


def test_write_then_attend_is_in_place():
    cache = KVPool.zeros(
        num_layers=3, num_pages=256, page_size=16, num_kv_heads=2, head_dim=64, dtype=jnp.float32
    )
    row = jnp.ones([1, 2, 64])

    def step(cache, query, slots, *batch):
        def body(cache, layer):
            cache, _ = cache.write(layer, row, row * (layer + 1), slots)
            output, num_dropped = cache.attend(layer, query, *batch)
            return cache, (output[0, 0, 0], num_dropped)

        return jax.lax.scan(body, cache, jnp.arange(3, dtype=jnp.int32))

    jitted = jax.jit(step, donate_argnums=0)
    batch = jnp.int32([[2, 5]]), jnp.int32([0, 1]), jnp.int32([1])
    arguments = jnp.ones([1, 6, 64]), jnp.int32([32]), *batch
    assert_in_place(jitted, cache, *arguments)
    _, (first, num_dropped) = jitted(cache, *arguments)
    assert first.tolist() == [1.0, 2.0, 3.0]
    assert num_dropped.tolist() == [0, 0, 0]


def test_a_write_after_the_read_is_seen_by_the_next_step_only():
    batch = Batch(((1, 4),), num_padding=0)
    query, keys, values, table, starts, lens = map(jnp.asarray, batch.arrays)

    def step(keys, values):
        written = write_kv(
            keys, values, keys[0, 0, :1], 9 * values[0, 0, :1], table[0, :1] * 4, layer=0
        )
        pools = written.key_pages, written.value_pages
        return paged_attention(query, *pools, table, starts, lens, layer=0).output

    output = jax.jit(step)(keys, values)
    batch.keys[0, table[0, 0], 0] = batch.keys[0, 0, 0]
    batch.values[0, table[0, 0], 0] = 9 * batch.values[0, 0, 0]
    np.testing.assert_allclose(output, oracle.paged_attention(*batch.arrays)[0], 2e-5, 2e-5)


def test_vmap_equals_a_loop_over_the_batch():
    batches = [Batch(seed=seed) for seed in range(3)]
    stacked = [np.stack(arrays) for arrays in zip(*(b.arrays for b in batches), strict=True)]
    actual = jax.vmap(functools.partial(paged_attention, layer=1))(*stacked)
    for i, batch in enumerate(batches):
        expected = oracle.paged_attention(*batch.arrays, layer=1)
        assert_attends((actual.output[i], actual.num_dropped[i]), expected)


def test_shard_map_computes_the_heads_of_each_device():
    mesh = jax.make_mesh((2,), ("tp",), axis_types=(AxisType.Auto,))
    batch = Batch()
    rows, pools = P(None, "tp", None), P(None, None, None, "tp", None)
    attend = jax.shard_map(
        functools.partial(paged_attention, layer=1),
        mesh=mesh,
        in_specs=(rows, pools, pools, P(), P(), P()),
        out_specs=PagedAttention(rows, P()),
    )
    expected = oracle.paged_attention(*batch.arrays, layer=1)
    assert_attends(jax.jit(attend)(*batch.arrays), expected)


def test_other_platforms_get_the_xla_branch():
    traced = jax.jit(functools.partial(paged_attention, layer=0)).trace(*Batch().arrays)
    target = "pagedkv.paged_attention.v2"
    assert target in traced.lower(lowering_platforms=("cpu",)).as_text()
    assert target not in traced.lower(lowering_platforms=("tpu",)).as_text()


def test_equals_gather_and_softmax():
    """What a user would write without the op."""
    batch = Batch(((1, 12),), group=1, num_padding=0)
    query, keys, values, table, starts, lens = batch.arrays
    rows = [gather_pages(p, table[0, :3], layer=0).rows.reshape(12, 2, 8) for p in (keys, values)]
    weights = jax.nn.softmax(jnp.einsum("hd,shd->hs", query[0], rows[0]) * 8**-0.5)
    expected = jnp.einsum("hs,shd->hd", weights, rows[1])
    actual = paged_attention(query, keys, values, table, starts, lens, layer=0)
    np.testing.assert_allclose(actual.output[0], expected, 1e-5, 1e-5)


# Refusals

BAD_VALUES = {
    "start": (
        "starts",
        [0, 6, 1, 6, 9],
        r"query_starts 6 to 1 of request 1 must not decrease, and",
    ),
    "tokens": (
        "starts",
        [0, 1, 6, 6, 12],
        r"query_starts 6 to 12 of request 3 must .* be in \[0, 11\]",
    ),
    "context": ("lens", [9, 4, 3, 12], r"context_lens 4 of request 1 is out of range \[5, 16\]"),
    "page": (
        "page_table",
        [[1, 2, 3, 0], [4, 99, 0, 0], [77, 0, 0, 0], [5, 6, 7, 0]],
        r"page 99 at position \[1, 1\] is out of range \[0, 12\)",
    ),
}


@pytest.mark.parametrize("name", BAD_VALUES)
def test_mode_raise_names_the_first_bad_one(name):
    attribute, values, text = BAD_VALUES[name]
    batch = Batch()
    setattr(batch, attribute, np.int32(values))
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"\[paged_attention\] " + text):
        jax.block_until_ready(paged_attention(*batch.arrays, layer=0, mode="raise"))


def test_mode_raise_names_the_layer():
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"layer 2 is out of range \[0, 2\)"):
        jax.block_until_ready(paged_attention(*Batch().arrays, layer=jnp.int32(2), mode="raise"))


def test_mode_raise_names_the_window():
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"sliding_window 0 must be at least 1"):
        jax.block_until_ready(
            paged_attention(*Batch().arrays, layer=0, sliding_window=jnp.int32(0), mode="raise")
        )


def test_mode_raise_lets_a_good_batch_pass():
    batch = Batch()
    expected = oracle.paged_attention(*batch.arrays)
    assert_attends(paged_attention(*batch.arrays, layer=0, mode="raise"), expected)


def test_differentiation_is_refused():
    query, *rest = map(jnp.asarray, Batch().arrays)
    with pytest.raises(ValueError, match=r"\[paged_attention\] has no derivative"):
        jax.grad(lambda query: paged_attention(query, *rest, layer=0).output.sum())(query)


BAD_CALLS = {
    "list": ({STARTS: [0, 1]}, {}, TypeError, r"query_starts must be an array, got list"),
    "int64": ({LENS: np.int64([1])}, {}, TypeError, r"context_lens must be int32, got int64"),
    "dtype of the pages": (
        {KEYS: Batch().keys.astype(np.float16)},
        {},
        TypeError,
        r"key_pages must be float32 or bfloat16, got float16",
    ),
    "dtype of the values": (
        {VALUES: Batch(dtype="bfloat16").values},
        {},
        TypeError,
        r"value_pages must be float32 as key_pages, got bfloat16",
    ),
    "dtype of the query": (
        {QUERY: Batch(dtype="bfloat16").query},
        {},
        TypeError,
        r"query must be float32 as key_pages, got bfloat16",
    ),
    "rank of the pages": (
        {KEYS: Batch().keys[0]},
        {},
        ValueError,
        r"key_pages must have shape \[layers, pages, page_size, kv_heads, head_dim\] with layer",
    ),
    "pages of the values": (
        {VALUES: Batch().values[:, 1:]},
        {},
        ValueError,
        r"value_pages must have the shape of key_pages but for head_dim",
    ),
    "rank of the query": (
        {QUERY: Batch().query[0]},
        {},
        ValueError,
        r"query must have shape \[tokens, heads, 8\], got \[6, 8\]",
    ),
    "heads": (
        {QUERY: Batch().query[:, 1:]},
        {},
        ValueError,
        r"query must have a multiple of the 2 kv heads of key_pages, .* got \[11, 5, 8\]",
    ),
    "rank of the table": (
        {TABLE: np.int32([1])},
        {},
        ValueError,
        r"page_table must have shape \[requests, width\], got \[1\]",
    ),
    "number of starts": (
        {STARTS: np.int32([0, 1])},
        {},
        ValueError,
        r"query_starts must have shape \[5\] for the 4 requests of page_table, got \[2\]",
    ),
    "number of lengths": (
        {LENS: np.int32([0, 1])},
        {},
        ValueError,
        r"context_lens must have shape \[4\] for the 4 requests of page_table, got \[2\]",
    ),
    "layer": ({}, {"layer": 2}, IndexError, r"layer 2 is out of range \[0, 2\)"),
    "scale": ({}, {"scale": "1"}, TypeError, r"scale must be a number, got str"),
    "window": (
        {},
        {"sliding_window": 0},
        ValueError,
        r"sliding_window must be at least 1, got 0",
    ),
    "type of the window": (
        {},
        {"sliding_window": 4.0},
        TypeError,
        r"sliding_window must be an array, got float",
    ),
    "shape of the window": (
        {},
        {"sliding_window": np.int32([4])},
        ValueError,
        r"sliding_window must be a scalar, got \[1\]",
    ),
    "mode": ({}, {"mode": "clip"}, ValueError, r"mode must be 'drop' or 'raise', got 'clip'"),
}


def changed(arrays, changes):
    return [changes.get(i, array) for i, array in enumerate(arrays)]


@pytest.mark.parametrize("name", BAD_CALLS)
def test_refuses_at_trace_time(name):
    changes, kwargs, error, text = BAD_CALLS[name]
    with pytest.raises(error, match=r"\[paged_attention\] " + text):
        paged_attention(*changed(Batch().arrays, changes), **{"layer": 0, **kwargs})


# The handler trusts nobody: the same questions, asked past Python

BAD_HANDLER_CALLS = {
    "mode": ({}, {"mode": "wrap"}, r"mode must be drop or raise, got wrap"),
    "instruction set": ({}, {"isa": "mmx"}, r"this CPU cannot run the instruction set mmx"),
    "uint32 table": ({TABLE: np.uint32([[1]])}, {}, r"page_table must be S32, got U32"),
    "uint32 starts": ({STARTS: np.uint32([1])}, {}, r"query_starts must be S32, got U32"),
    "uint32 lengths": ({LENS: np.uint32([1])}, {}, r"context_lens must be S32, got U32"),
    "float layer": ({}, {"layer": np.float32(0)}, r"layer must be S32, got F32"),
    "rank of the layer": ({}, {"layer": np.int32([0])}, r"layer must be a scalar, got \[1\]"),
    "float window": (
        {},
        {"window": np.float32(4)},
        r"sliding_window must be S32 as layer, got F32",
    ),
    "rank of the window": (
        {},
        {"window": np.int32([4])},
        r"sliding_window must have the shape \[\] of layer, got \[1\]",
    ),
    "rank of the table": (
        {TABLE: np.int32([1])},
        {},
        r"page_table must have shape \[requests, width\], got \[1\]",
    ),
    "number of starts": (
        {STARTS: np.int32([0, 1])},
        {},
        r"query_starts must have shape \[5\] for 4 requests, got \[2\]",
    ),
    "number of lengths": (
        {LENS: np.int32([[1]])},
        {},
        r"context_lens must have shape \[4\] for 4 requests, got \[1, 1\]",
    ),
    "dtype of the count": (
        {},
        {"count": SHAPE((), jnp.float32)},
        r"num_dropped must be S32 as layer, got F32",
    ),
    "dtype of the pages": (
        {KEYS: Batch().keys.astype(ml_dtypes.float8_e4m3fn)},
        {},
        r"key_pages must be F32 or BF16, got F8E4M3FN",
    ),
    "dtype of the values": (
        {VALUES: Batch().values.astype(np.float16)},
        {},
        r"value_pages must be F32 as key_pages, got F16",
    ),
    "dtype of the query": (
        {QUERY: Batch().query.astype(np.float16)},
        {},
        r"query must be F32 as key_pages, got F16",
    ),
    "dtype of the output": (
        {},
        {"output": SHAPE((11, 6, 8), jnp.bfloat16)},
        r"output must be F32 as key_pages, got BF16",
    ),
    "rank of the pages": (
        {KEYS: Batch().keys[0, 0]},
        {},
        r"pages must have rows of \[kv_heads, head_dim\], and .* got \[4, 2, 8\] and \[2, 12, ",
    ),
    "pages of the values": (
        {VALUES: Batch().values[:, 1:]},
        {},
        r"key and value differ in head_dim alone, got \[2, 12, 4, 2, 8\] and \[2, 11, 4, 2, 8\]",
    ),
    "query": (
        {QUERY: Batch().query[0]},
        {},
        r"query must have shape \[tokens, heads, 8\], got \[6, 8\]",
    ),
    "output": (
        {},
        {"output": SHAPE((11, 6, 7), jnp.float32)},
        r"output must have shape \[tokens, heads, 8\], got \[11, 6, 7\]",
    ),
    "tokens of the output": (
        {},
        {"output": SHAPE((10, 6, 8), jnp.float32)},
        r"output must have the tokens and heads of query, \[11, 6, 8\], got \[10, 6, 8\]",
    ),
    "heads": (
        {QUERY: Batch().query[:, 1:]},
        {},
        r"query must have a multiple of the 2 kv heads, got 5",
    ),
}


@pytest.mark.parametrize("name", BAD_HANDLER_CALLS)
def test_handler_refuses(name):
    changes, kwargs, text = BAD_HANDLER_CALLS[name]
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"\[paged_attention\] .*" + text):
        call_handler(changed(Batch().arrays, changes), **kwargs)
