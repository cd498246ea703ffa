"""JAX's attention kernels on our pools: what they read, and what they are never given."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import ops_oracle as oracle
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas.ops.tpu import ragged_paged_attention as ragged
from jax.experimental.pallas.ops.tpu.ragged_paged_attention import kernel as ragged_kernel
from pagedkv import KVLayout
from pagedkv.ops import write_kv
from pagedkv.ops._pallas import attention

LAYERS, PAGES, PAGE_SIZE, WIDTH = 3, 7, 16, 3
HEADS, KV_HEADS, DIM = 4, 2, 128
BFLOAT16 = ml_dtypes.bfloat16
GPU = pytest.mark.filterwarnings("ignore:.*paged_attention is deprecated:DeprecationWarning")
EXTREME = st.sampled_from([-(2**31), -1, 0, 2**31 - 1])


@functools.cache
def make(layout, dtype, layered=True):
    """Pools that `write_kv` wrote, and the same as the oracle takes them."""
    rng = np.random.default_rng(0)
    shapes = layout.pool_shapes(
        num_pages=PAGES,
        page_size=PAGE_SIZE,
        num_kv_heads=KV_HEADS,
        head_dim=DIM,
        dtype_bits=8 * np.dtype(dtype).itemsize,
    )
    pools = [jnp.zeros((LAYERS, *shape), dtype) for shape in shapes]
    plain = []
    rows = rng.normal(size=(2, LAYERS, PAGES * PAGE_SIZE, KV_HEADS, DIM)).astype(dtype)
    slots = np.arange(PAGES * PAGE_SIZE, dtype=np.int32)
    for layer in range(LAYERS):
        written = write_kv(*[*pools, None][:2], *rows[:, layer], slots, layer=layer, layout=layout)
        pools = [pool for pool in written[:2] if pool is not None]
    plain = rows.reshape(2, LAYERS, PAGES, PAGE_SIZE, KV_HEADS, DIM)
    if not layered:
        pools, plain = [pool[1] for pool in pools], plain[:, 1:2]
    return [*pools, None][:2], plain


def queries(num_tokens, dtype):
    return np.random.default_rng(1).normal(size=(num_tokens, HEADS, DIM)).astype(dtype)


def assert_attends(output, num_dropped, query, plain, table, starts, lens, layer=0, **kwargs):
    """As the oracle; but a request with a page out of range gives zeros."""
    expected, expected_dropped = oracle.paged_attention(
        query, *plain, table, starts, lens, layer=layer, **kwargs
    )
    assert int(num_dropped) == expected_dropped
    wrong = (table < 0) | (table >= PAGES)
    for r in np.flatnonzero(wrong.any(axis=1)):
        one = slice(r, r + 1)
        size = max(0, min(int(starts[r + 1]) - int(starts[r]), len(query)))
        args = (table[one], np.int32([0, size]), lens[one])
        if oracle.paged_attention(query[:size], *plain, *args, layer=layer, **kwargs)[1]:
            expected[max(0, starts[r]) : max(0, starts[r + 1])] = 0
    tolerance = 2e-2 if query.dtype == BFLOAT16 else 1e-5
    np.testing.assert_allclose(
        np.asarray(output, np.float32), expected.astype(np.float32), rtol=tolerance, atol=tolerance
    )


def check_ragged(query, pool, lens, table, starts, num_requests):
    """What JAX's kernel asks of its operands and does not check."""
    assert 0 <= table.min() <= table.max() < len(pool)
    assert 1 <= num_requests[0] <= len(lens)
    assert 1 <= lens.min() <= lens.max() <= table.shape[1] * pool.shape[1]
    assert starts[0] >= 0
    assert (starts[1:] >= starts[:-1]).all()
    # It waits for the pages of the last request, so that must have a token.
    assert starts[num_requests[0] - 1] < starts[num_requests[0]] <= len(query)


@pytest.fixture
def ragged_reference(monkeypatch):
    """In place of JAX's kernel, which no interpreter runs: its own reference."""

    def reference(*operands, sm_scale, sliding_window, soft_cap, **_):
        check_ragged(*map(np.asarray, operands))
        output = ragged_kernel.ref_ragged_paged_attention(
            *operands, sm_scale=sm_scale, sliding_window=sliding_window, soft_cap=soft_cap
        )
        # What belongs to no request the kernel leaves as it was.
        rest = (len(operands[0]) - len(output), *output.shape[1:])
        return jnp.concatenate([output, jnp.full(rest, jnp.nan, output.dtype)])

    monkeypatch.setattr(ragged, "ragged_paged_attention", reference)


@pytest.fixture
def ragged_oracle(monkeypatch):
    """In place of JAX's kernel: ours in NumPy, which knows no compilation."""

    def oracle_kernel(*operands, sm_scale, sliding_window, **_):
        query, pool, lens, table, starts, num_requests = map(np.asarray, operands)
        check_ragged(query, pool, lens, table, starts, num_requests)
        n = num_requests[0]
        keys, values = pool[None, :, :, 0::2], pool[None, :, :, 1::2]
        args = (query, keys, values, table[:n], starts[: n + 1], lens[:n])
        return jnp.asarray(oracle.paged_attention(*args, scale=sm_scale, window=sliding_window)[0])

    monkeypatch.setattr(ragged, "ragged_paged_attention", oracle_kernel)


def attend(platform, layout, dtype, query, table, starts, lens, layer=0, *, layered=True, **kwargs):
    pools, plain = make(layout, dtype, layered)
    static = {"layered": layered, "layout": layout}
    limits = {name: kwargs[name] for name in ("window", "soft_cap") if name in kwargs}
    assert attention.supports(platform, query, *pools, table, **static, **limits)
    result = attention.paged_attention(
        *(platform, jnp.asarray(query), *pools),
        *map(jnp.asarray, (table, starts, lens, np.int32(layer))),
        scale=DIM**-0.5,
        **static,
        **kwargs,
    )
    return result, plain


TABLE = np.int32([[1, 2, 3], [4, 0, 0], [6, 5, 4], [2, 2, 1]])


@pytest.mark.usefixtures("ragged_reference")
@pytest.mark.parametrize(
    ("layout", "dtype", "window"),
    [(KVLayout.FUSED, np.float32, 7), (KVLayout.FUSED_PACKED, BFLOAT16, None)],
    ids=["FUSED", "FUSED_PACKED"],
)
def test_the_ragged_kernel_reads_what_we_wrote(layout, dtype, window):
    table, starts, lens = TABLE[:3], np.int32([0, 5, 5, 6]), np.int32([20, 0, 17])
    query = queries(7, dtype)
    result, plain = attend("tpu", layout, dtype, query, table, starts, lens, 2, window=window)
    assert_attends(*result, query, plain, table, starts, lens, layer=2, window=window)


@pytest.mark.usefixtures("ragged_reference")
def test_the_ragged_kernel_caps_scores():
    starts, lens = np.int32([0, 1]), np.int32([2])
    query = 100 * queries(1, np.float32)
    result, plain = attend(
        "tpu", KVLayout.FUSED, np.float32, query, TABLE[:1], starts, lens, soft_cap=5.0
    )
    keys, values = plain[:, 0, 1, :2]
    for head in range(HEADS):
        scores = 5 * np.tanh(keys[:, head // 2] @ query[0, head] * DIM**-0.5 / 5)
        weights = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(
            result[0][0, head], weights @ values[:, head // 2], rtol=1e-4, atol=1e-5
        )


@pytest.mark.usefixtures("ragged_oracle")
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=st.lists(
        st.lists(st.integers(-1, PAGES) | EXTREME, min_size=WIDTH, max_size=WIDTH),
        min_size=3,
        max_size=3,
    ),
    starts=st.lists(st.integers(-1, 10) | EXTREME, min_size=4, max_size=4),
    lens=st.lists(st.integers(-1, WIDTH * PAGE_SIZE + 1) | EXTREME, min_size=3, max_size=3),
    is_sorted=st.booleans(),
    layer=st.integers(-1, LAYERS),
    window=st.none() | st.integers(1, 40),
)
@example([[1] * 3] * 3, [1, 2, 0, 0], [1, 0, 0], False, 0, None)  # the first token is nobody's
@example([[1] * 3] * 3, [5, 5, 5, 5], [1, 1, 1], False, 0, None)  # all are
def test_nothing_out_of_range_reaches_the_ragged_kernel(
    table, starts, lens, is_sorted, layer, window
):
    layout, dtype = KVLayout.FUSED, np.float32
    arrays = np.int32(table), np.int32(sorted(starts) if is_sorted else starts), np.int32(lens)
    query = queries(9, dtype)
    result, plain = attend("tpu", layout, dtype, query, *arrays, layer, window=window)
    if 0 <= layer < LAYERS:
        assert_attends(*result, query, plain, *arrays, layer=layer, window=window)
    else:
        assert not np.asarray(result[0]).any()


# Sound, empty, too long, and with pages that are not there, of which one is read.
DECODES = (
    np.int32([[1, 2, 3], [4, 0, 0], [6, 5, 4], [2, PAGES, -1], [2, 99, -7]]),
    np.int32([0, 1, 1, 2, 3, 4]),
    np.int32([40, 0, 49, 17, 16]),
)


def test_the_decode_kernel_of_tpus_in_the_simulator():
    query = queries(5, BFLOAT16)
    with pltpu.force_tpu_interpret_mode():
        result, plain = attend(
            "tpu", KVLayout.HEADS_FIRST, BFLOAT16, query, *DECODES, layered=False
        )
    assert_attends(*result, query, plain, *DECODES)


@GPU
def test_the_decode_kernel_of_gpus_interpreted():
    query = queries(5, np.float32)
    result, plain = attend(
        *("gpu", KVLayout.HEADS_FIRST, np.float32, query, *DECODES), layered=False, interpret=True
    )
    assert_attends(*result, query, plain, *DECODES)


@GPU
def test_a_token_of_a_decode_kernel_sees_up_to_itself():
    """Three tokens of one request, where the kernel knows of one token a request alone."""
    table, starts, lens = TABLE, np.int32([0, 0, 3, 3, 4]), np.int32([5, 16, 9, 33])
    query = queries(4, np.float32)
    result, plain = attend(
        *("gpu", KVLayout.HEADS_FIRST, np.float32, query, table, starts, lens),
        layered=False,
        interpret=True,
    )
    assert_attends(*result, query, plain, table, starts, lens)


def array(*shape, dtype="bfloat16"):
    return jax.ShapeDtypeStruct(shape, dtype)


FUSED = array(9, 16, 16, 128)
FIRST = array(8, 9, 16, 128)


@pytest.mark.parametrize(
    ("platform", "layout", "pools", "query", "kwargs", "served"),
    [
        ("tpu", "FUSED", [FUSED, None], array(50, 32, 128), {}, True),
        ("tpu", "FUSED", [FUSED, None], array(50, 32, 128), {"window": 9, "soft_cap": 5.0}, True),
        (
            "tpu",
            "FUSED",
            [array(3, 9, 16, 16, 128), None],
            array(5, 32, 128),
            {"layered": True},
            True,
        ),
        ("tpu", "FUSED_PACKED", [array(9, 16, 8, 2, 128), None], array(50, 32, 128), {}, True),
        ("tpu", "FUSED", [array(9, 16, 16, 256), None], array(50, 32, 256), {}, False),
        ("tpu", "FUSED", [array(9, 16, 6, 128), None], array(50, 3, 128), {}, False),
        ("tpu", "FUSED", [FUSED, None], array(50, 32, 128, dtype="float32"), {}, False),
        ("tpu", "FUSED", [FUSED, None], array(0, 32, 128), {}, False),
        ("gpu", "FUSED", [FUSED, None], array(4, 32, 128), {}, False),
        ("tpu", "HEADS_FIRST", [FIRST, FIRST], array(4, 32, 128), {}, True),
        ("tpu", "HEADS_FIRST", [FIRST, FIRST], array(5, 32, 128), {}, False),
        ("tpu", "HEADS_FIRST", [FIRST, FIRST], array(4, 32, 128), {"window": 9}, False),
        ("gpu", "HEADS_FIRST", [FIRST, FIRST], array(4, 32, 128), {"soft_cap": 5.0}, True),
        ("gpu", "HEADS_FIRST", [array(8, 9, 16, 80)] * 2, array(4, 32, 80), {}, False),
        (
            "gpu",
            "HEADS_FIRST",
            [array(2, *FIRST.shape)] * 2,
            array(4, 32, 128),
            {"layered": True},
            False,
        ),
        ("tpu", "NHD", [array(9, 16, 8, 128)] * 2, array(4, 32, 128), {}, False),
        ("tpu", "SIDE_BY_SIDE", [array(9, 16, 4, 2, 128), None], array(4, 32, 64), {}, False),
    ],
)
def test_what_has_a_kernel(platform, layout, pools, query, kwargs, served):
    table = array(4, 6, dtype="int32")
    kwargs = {"layered": False, **kwargs}
    assert served == attention.supports(
        platform, query, *pools, table, layout=KVLayout[layout], **kwargs
    )
