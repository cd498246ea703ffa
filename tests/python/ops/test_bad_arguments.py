"""Anything at all as an argument of an op: it is refused with a text of ours, or traced.

The ops are traced and nothing more, so that what is accepted costs no compilation. What the handlers
make of values that only they see, tests/fuzz asks.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pagedkv import ops
from pagedkv.ops import QuantizedPages

POOL = np.zeros([4, 2, 1, 8], np.float32)
IDS = np.zeros([3], np.int32)


def valid_calls():
    """By name: an op and arguments that it takes."""
    rows = np.zeros([3, 1, 8], np.float32)
    pages = np.zeros([3, 2, 1, 8], np.float32)
    quantized = QuantizedPages(np.zeros([4, 2, 1, 8], np.int8), np.zeros([4, 2, 1], np.float32))
    stacked = np.zeros([5, 4, 2, 1, 8], np.float32)
    return {
        "write_kv": (ops.write_kv, (POOL, POOL, rows, rows, IDS), {}),
        "write_kv stacked": (
            ops.write_kv,
            (stacked, stacked, rows, rows, IDS),
            {"layer": 1, "layout": "NHD", "mode": "drop"},
        ),
        "write_kv quantized": (ops.write_kv, (quantized, quantized, rows, rows, IDS), {}),
        "gather_pages": (ops.gather_pages, (POOL, IDS), {}),
        "gather_pages quantized": (ops.gather_pages, (quantized, IDS), {"dtype": "float32"}),
        "gather_into": (ops.gather_into, (POOL, IDS, pages), {}),
        "gather_through": (ops.gather_through, (stacked, IDS), {"layer": np.int32(2)}),
        "scatter_pages": (ops.scatter_pages, (POOL, IDS, pages), {}),
        "copy_pages": (ops.copy_pages, ([POOL, {"values": POOL}], IDS, IDS), {"stacked": False}),
        "move_pages": (
            ops.move_pages,
            ([POOL], IDS, np.zeros([3, 64], np.uint8)),
            {"to": "rows", "layout": "NHD"},
        ),
        "page_row_bytes": (ops.page_row_bytes, ([POOL],), {"stacked": False}),
        "paged_attention": (
            ops.paged_attention,
            (
                np.zeros([3, 2, 8], np.float32),
                POOL,
                POOL,
                np.zeros([2, 3], np.int32),
                np.zeros([3], np.int32),
                np.zeros([2], np.int32),
            ),
            {"scale": 0.5, "sliding_window": 4},
        ),
        "paged_attention latent": (
            ops.paged_attention,
            (
                np.zeros([3, 2, 8], np.float16),
                QuantizedPages(np.zeros([5, 4, 2, 8], np.int8), np.zeros([5, 4, 2], np.float32)),
                None,
                np.zeros([2, 3], np.int32),
                np.zeros([3], np.int32),
                np.zeros([2], np.int32),
            ),
            {
                "layer": np.int32(2),
                "layout": "LATENT",
                "num_kv_heads": 1,
                "value_dim": 6,
                "soft_cap": 30.0,
                "attention_chunk_size": 8,
                "num_sink_tokens": 4,
                "sinks": np.zeros([2], np.float32),
            },
        ),
        "QuantizedPages.zeros": (
            QuantizedPages.zeros,
            ((4, 2, 1, 8), "int8"),
            {"granularity": "page", "layout": "HND"},
        ),
    }


DTYPES = ["int32", "int64", "uint8", "float32", "float64", "bool", "complex64", "bfloat16", "int4"]
DTYPES += ["float8_e4m3fn", "int8", "uint32"]
NUMPY_DTYPES = [object, "U3", "S2", "M8[s]", ">i4", ">f4", [("a", np.int32)], "V2", np.longdouble]

NUMBERS = [True, False, 0, 1, -1, 7, 2**31, -(2**31) - 1, 10**400, 0.5, math.nan, math.inf, 1e300]
WORDS = ["", "drop", "raise", "rows", "NHD", "LATENT", "page", "float32", "nonsense", b"NHD"]
ODDITIES = [None, 1j, range(3), object, np.int32, np.float32, jnp.bfloat16, len, ...]
NUMPY = [np.int32(3), np.int32(-1), np.int64(3), np.float32(1), np.bool_(True), np.dtype("int8")]
SCALARS = st.sampled_from([*NUMBERS, *WORDS, *ODDITIES, *NUMPY])
SHAPES = st.lists(st.integers(0, 5), max_size=5).map(tuple)
ARRAYS = st.one_of(
    st.builds(np.zeros, SHAPES, st.sampled_from(DTYPES).map(jnp.dtype)),
    st.builds(np.zeros, SHAPES, st.sampled_from(NUMPY_DTYPES)),
    st.builds(jax.ShapeDtypeStruct, SHAPES, st.just(np.int32)),
    st.builds(np.ma.zeros, SHAPES, st.just(np.int32)),
)
# With huge axes and no elements.
EMPTY = st.permutations([0, 2**30, 2**20, 1]).map(lambda shape: np.zeros(shape, np.float32))
LEAVES = st.one_of(SCALARS, ARRAYS, EMPTY)
JUNK = st.one_of(
    LEAVES,
    st.lists(LEAVES, max_size=3),
    st.lists(LEAVES, max_size=3).map(tuple),
    st.dictionaries(st.sampled_from(["a", 1, None, (2,)]), LEAVES, max_size=3),
    st.builds(QuantizedPages, LEAVES, LEAVES),
    st.builds(object),
)


def assert_refused_or_traced(call, operation):
    try:
        jax.eval_shape(lambda: jax.tree.map(jnp.asarray, call()))
    except (TypeError, ValueError, IndexError) as error:
        if not str(error).startswith(f"[{operation}] "):
            raise


@pytest.mark.parametrize("name", valid_calls())
def test_valid_calls_are_traced(name):
    op, arguments, options = valid_calls()[name]
    jax.eval_shape(lambda: jax.tree.map(jnp.asarray, op(*arguments, **options)))


@pytest.mark.parametrize("name", valid_calls())
@given(data=st.data())
def test_any_argument_is_refused_or_traced(name, data):
    op, arguments, options = valid_calls()[name]
    arguments, options = list(arguments), dict(options)
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.sampled_from([*range(len(arguments)), *options]))
        (arguments if isinstance(at, int) else options)[at] = data.draw(JUNK)
    call = functools.partial(op, *arguments, **options)
    assert_refused_or_traced(call, op.__qualname__)


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        # What a run of the test above found, before it was refused by us.
        ("gather_pages", 0, np.zeros([4, 2, 1, 8], object)),
        ("gather_pages", 0, np.zeros([4, 2, 1, 8], ">f4")),
        ("gather_pages", 0, np.ma.zeros([4, 2, 1, 8], np.float32)),
        ("gather_pages", 0, jax.ShapeDtypeStruct((4, 2, 1, 8), np.float32)),
        ("gather_pages", 1, np.int32),
        ("gather_pages quantized", "dtype", "nonsense"),
        ("gather_pages quantized", "mode", np.array(["drop", "raise"])),
        ("copy_pages", 0, {"a": POOL, 1: POOL}),
        ("copy_pages", 0, [np.zeros([0], np.int32)]),
        ("copy_pages", "stacked", np.zeros(2)),
        ("move_pages", "to", np.array(["rows", "pages"])),
        ("paged_attention", "scale", 10**400),
        ("paged_attention", "scale", 1e300),
        ("paged_attention latent", "soft_cap", 1e-60),
        ("paged_attention latent", "value_dim", 10**400),
        ("paged_attention latent", "num_kv_heads", 0),
        ("paged_attention latent", "sinks", [0.0, 0.0]),
        ("QuantizedPages.zeros", 0, None),
        ("QuantizedPages.zeros", 0, (4, 2, -1, 8)),
        ("QuantizedPages.zeros", 1, "nonsense"),
    ],
)
def test_refused(name, at, value):
    op, arguments, options = valid_calls()[name]
    arguments, options = list(arguments), dict(options)
    (arguments if isinstance(at, int) else options)[at] = value
    with pytest.raises((TypeError, ValueError), match=rf"^\[{op.__qualname__}\] "):
        op(*arguments, **options)
