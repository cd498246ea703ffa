"""Specs: what a page of a layer holds, and every way to say a dtype."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from pagedkv import AttentionSpec, CacheGroupSpec, CacheSpec, FullAttentionSpec


def test_page_holds_keys_and_values():
    spec = FullAttentionSpec(page_size=16, num_kv_heads=3, head_size=64, dtype="float32")
    assert spec.page_size_bytes == 16 * 3 * 64 * 4 * 2
    assert (spec.page_size, spec.num_kv_heads, spec.head_size) == (16, 3, 64)
    assert not spec.use_mla
    assert isinstance(spec, AttentionSpec)
    assert isinstance(spec, CacheSpec)


def test_latent_page_holds_one_row_a_token():
    assert FullAttentionSpec(16, 1, 576, "bfloat16", use_mla=True).page_size_bytes == 16 * 576 * 2


@pytest.mark.parametrize(
    "dtype",
    [
        "bfloat16",
        jnp.bfloat16,
        ml_dtypes.bfloat16,
        np.dtype(ml_dtypes.bfloat16),
        jnp.zeros(1, "bfloat16").dtype,
    ],
    ids=["name", "jax", "ml_dtypes", "numpy dtype", "array's dtype"],
)
def test_takes_a_dtype_in_every_form(dtype):
    assert FullAttentionSpec(16, 1, 64, dtype).dtype == "bfloat16"


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [
        ("float32", 32),
        ("float16", 16),
        ("int8", 8),
        ("float8_e4m3fn", 8),
        ("float8_e5m2", 8),
        ("int4", 4),
    ],
)
def test_counts_the_bits_of_a_dtype(dtype, bits):
    assert FullAttentionSpec(8, 1, 64, dtype).page_size_bytes == 8 * 64 * 2 * bits // 8


@pytest.mark.parametrize("name", ["page_size", "num_kv_heads", "head_size"])
@pytest.mark.parametrize("value", [0, -1])
def test_refuses_sizes_below_one(name, value):
    sizes = {"page_size": 16, "num_kv_heads": 1, "head_size": 64} | {name: value}
    with pytest.raises(ValueError, match=rf"^\[CacheSpec\] {name} must be >= 1, got {value}$"):
        FullAttentionSpec(**sizes, dtype="float32")


def test_refuses_unknown_dtypes():
    with pytest.raises(
        ValueError, match=r"^\[DType\] unknown dtype 'bf16', must be one of float32,"
    ):
        FullAttentionSpec(16, 1, 64, "bf16")
    with pytest.raises(ValueError, match="unknown dtype 'complex64'"):
        FullAttentionSpec(16, 1, 64, np.complex64)
    with pytest.raises(TypeError, match=r"^\[DType\] must be a dtype or its name, got <object"):
        FullAttentionSpec(16, 1, 64, object())


def test_refuses_pages_that_are_not_whole_bytes():
    with pytest.raises(ValueError, match="a page must be whole bytes, got 12 bits"):
        FullAttentionSpec(1, 1, 3, "int4", use_mla=True)


def test_group_keeps_its_spec_and_layers():
    group = CacheGroupSpec(FullAttentionSpec(16, 1, 64, "int8"), ["layer.0", "layer.1"])
    assert isinstance(group.kv_cache_spec, FullAttentionSpec)
    assert group.layer_names == ["layer.0", "layer.1"]
    assert CacheGroupSpec(group.kv_cache_spec).layer_names == []
