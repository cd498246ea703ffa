"""Pages next to tpu-inference's own references, which write and read them: the same, bit for bit."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import ops_oracle as oracle
import pytest
import tpu_inference_kernels
from pagedkv import KVLayout
from pagedkv.ops import write_kv
from pagedkv.ops._pallas import _tpu

BFLOAT16 = ml_dtypes.bfloat16
DTYPES = pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=["float32", "bfloat16"])
PAGES, PAGE_SIZE, KV_HEADS, HEADS = 9, 16, 3, 6
# A chunk of a prompt behind 16 tokens that are there, a decode, and a prompt from its start.
STARTS, LENS = np.int32([0, 6, 7, 12]), np.int32([22, 33, 5])
TABLE = np.int32([[4, 2, 0], [1, 8, 5], [7, 0, 0]])
# tpu-inference sorts its batch: how many requests decode, prefill in chunks, are there.
DISTRIBUTION = np.int32([0, 0, 3])


@pytest.fixture(scope="module")
def theirs():
    return tpu_inference_kernels.load(tpu_inference_kernels.find_wheel())


def slots_of(starts, lens):
    """Of the tokens of the batch."""
    slots = []
    for r, pages in enumerate(TABLE):
        for position in range(lens[r] - (starts[r + 1] - starts[r]), lens[r]):
            slots.append(pages[position // PAGE_SIZE] * PAGE_SIZE + position % PAGE_SIZE)
    return np.int32(slots)


def filled(layout, dtype, heads, dim):
    """A pool that `write_kv` filled, and the K/V in it."""
    (shape,) = layout.pool_shapes(
        num_pages=PAGES,
        page_size=PAGE_SIZE,
        num_kv_heads=heads,
        head_dim=dim,
        dtype_bits=8 * np.dtype(dtype).itemsize,
    )
    row = (dim,) if layout.is_latent else (heads, dim)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1 if layout.is_latent else 2, PAGES * PAGE_SIZE, *row)).astype(dtype)
    slots = np.arange(PAGES * PAGE_SIZE, dtype=np.int32)
    pool = write_kv(jnp.zeros(shape, dtype), None, *[*rows, None][:2], slots, layout=layout)[0]
    return pool, rows


def writes(layout, pool, *rows):
    """The pool with the batch's rows, as the FFI handler and as the TPU kernel write it."""
    slots = slots_of(STARTS, LENS)
    yield write_kv(pool, None, *[*rows, None][:2], slots, layout=layout)[0]
    yield _tpu.write_kv(
        slots, jnp.int32(0), pool, *rows, layout=layout, layered=False, interpret=True
    )[1]


def assert_same_pages(ours, theirs):
    """Page 0 aside: theirs fills what a table has behind the last page of a request with it."""
    np.testing.assert_array_equal(
        np.asarray(ours)[1:].view(np.uint8), np.asarray(theirs)[1:].view(np.uint8)
    )


@DTYPES
@pytest.mark.parametrize(
    ("layout", "dim", "window"),
    [(KVLayout.FUSED_PACKED, 80, None), (KVLayout.SIDE_BY_SIDE, 64, 9)],
    ids=["v3", "v3_hd64"],
)
def test_attention_writes_and_reads_our_pages(theirs, layout, dim, window, dtype):
    pool, (keys, values) = filled(layout, dtype, KV_HEADS, dim)
    rng = np.random.default_rng(1)
    query = rng.normal(size=(STARTS[-1], HEADS, dim)).astype(dtype)
    key, value = rng.normal(size=(2, STARTS[-1], KV_HEADS, dim)).astype(dtype)
    is_hd64 = layout is KVLayout.SIDE_BY_SIDE
    reference = (
        theirs.kernel_hd64.ref_ragged_paged_attention_hd64
        if is_hd64
        else theirs.kernel.ref_ragged_paged_attention
    )
    batch = (LENS, TABLE.reshape(-1), STARTS, DISTRIBUTION)
    output, written = reference(
        *map(jnp.asarray, (query, key, value, pool, *batch)),
        sm_scale=dim**-0.5,
        sliding_window=window,
    )
    for ours in writes(layout, pool, key, value):
        assert_same_pages(ours, written)
    slots = slots_of(STARTS, LENS)
    keys[slots], values[slots] = key, value
    plain = [rows.reshape(1, PAGES, PAGE_SIZE, KV_HEADS, dim) for rows in (keys, values)]
    expected, _ = oracle.paged_attention(query, *plain, TABLE, STARTS, LENS, window=window)
    tolerance = 1e-5 if dtype == np.float32 else 2e-2
    np.testing.assert_allclose(
        np.asarray(output, np.float32), expected.astype(np.float32), tolerance, tolerance
    )


@DTYPES
def test_mla_writes_our_pages(theirs, dtype):
    layout, latent, rope = KVLayout.LATENT_PACKED, 128, 64
    pool, _ = filled(layout, dtype, 1, latent + rope)
    row = np.random.default_rng(1).normal(size=(STARTS[-1], latent + rope)).astype(dtype)
    batch = (LENS, TABLE.reshape(-1), STARTS, DISTRIBUTION)
    written = theirs.mla.update_kv_cache(
        *map(jnp.asarray, (row[:, :latent], row[:, latent:], pool + 0, *batch))  # it donates
    )
    for ours in writes(layout, pool, row):
        assert_same_pages(ours, written)
