"""KVPool: a pytree that is written in place and read by page table."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pagedkv.kv_pool import KVPool
from pagedkv.testing import assert_in_place

SIZES = {"num_layers": 3, "num_pages": 8, "page_size": 4, "num_kv_heads": 2, "head_dim": 8}


def zeros(**changes):
    return KVPool.zeros(**{**SIZES, "dtype": jnp.bfloat16, **changes})


def test_zeros_has_the_sizes_asked_for():
    cache = zeros()
    assert {name: getattr(cache, name) for name in SIZES} == SIZES
    assert cache.key_pages.shape == cache.value_pages.shape == (3, 8, 4, 2, 8)
    assert cache.dtype == jnp.bfloat16
    assert cache.nbytes == 2 * 3 * 8 * 4 * 2 * 8 * 2
    assert not cache.key_pages.any()
    assert not cache.value_pages.any()


def test_zeros_shares_no_memory_between_keys_and_values():
    cache = zeros()
    pools = cache.key_pages, cache.value_pages
    assert len({pool.unsafe_buffer_pointer() for pool in pools}) == 2


def test_zeros_goes_to_the_device_or_sharding_asked_for():
    assert zeros(device=jax.devices()[1]).key_pages.devices() == {jax.devices()[1]}


@pytest.mark.parametrize("name", SIZES)
def test_zeros_refuses_a_size_too_small(name):
    minimum = 2 if name == "num_pages" else 1
    text = rf"\[KVPool.zeros\] {name} must be at least {minimum}, got {minimum - 1}"
    with pytest.raises(ValueError, match=text):
        zeros(**{name: minimum - 1})


@pytest.mark.parametrize("size", [True, 4.0, "4"])
def test_zeros_refuses_a_size_that_is_no_int(size):
    text = rf"\[KVPool.zeros\] page_size must be int, got {type(size).__name__}"
    with pytest.raises(TypeError, match=text):
        zeros(page_size=size)


def test_zeros_refuses_more_slots_than_int32_can_number():
    with pytest.raises(ValueError, match=r"must be at most 2147483647, .* got 2147483648"):
        zeros(num_pages=2**29)


def test_is_a_pytree_of_its_two_pools():
    cache = zeros()
    leaves, treedef = jax.tree.flatten(cache)
    assert leaves[0] is cache.key_pages
    assert leaves[1] is cache.value_pages
    assert isinstance(jax.tree.unflatten(treedef, leaves), KVPool)


def test_is_frozen():
    cache = zeros()
    with pytest.raises(dataclasses.FrozenInstanceError):
        cache.key_pages = cache.value_pages


def test_repr_is_one_line_of_sizes():
    assert repr(zeros()) == (
        "KVPool(3 layers x 8 pages x 4 tokens, 2 kv heads x 8, bfloat16, 0.0 MiB)"
    )
    assert repr(jax.tree.map(lambda _: None, zeros())) == "KVPool(None, None)"
    assert "bfloat16" in repr(jax.eval_shape(zeros))


def test_gathers_what_it_wrote():
    slots = np.int32([4, 5, 31, -1, 99])
    key = jnp.arange(5 * 16, dtype=jnp.bfloat16).reshape(5, 2, 8)
    cache, num_dropped = zeros().write(2, key, -key, slots)
    assert int(num_dropped) == 1
    keys, values = cache.gather(2, np.int32([[1, 7], [-1, 0]]))
    assert keys.shape == values.shape == (2, 8, 2, 8)
    expected = np.zeros((2, 8, 2, 8), np.float32)
    expected[0, [0, 1, 7]] = np.asarray(key[:3], np.float32)
    np.testing.assert_array_equal(np.asarray(keys, np.float32), expected)
    np.testing.assert_array_equal(np.asarray(values, np.float32), -expected)
    assert not cache.gather(1, np.int32([[1, 7]]))[0].any()


def test_step_over_all_layers_is_in_place():
    def step(cache, row, slots, table):
        def body(cache, layer):
            cache, num_dropped = cache.write(layer, row, row, slots)
            keys, values = cache.gather(layer, table)
            return cache, (num_dropped, keys.sum() + values.sum())

        return jax.lax.scan(body, cache, jnp.arange(cache.num_layers, dtype=jnp.int32))

    cache = zeros(num_pages=256, head_dim=64)
    row = jnp.ones([1, 2, 64], jnp.bfloat16)
    arguments = (row, jnp.int32([9]), jnp.int32([[2]]))
    jitted = jax.jit(step, donate_argnums=0)
    assert_in_place(jitted, cache, *arguments)
    before = cache.key_pages.unsafe_buffer_pointer()
    cache, (num_dropped, sums) = jitted(cache, *arguments)
    assert cache.key_pages.unsafe_buffer_pointer() == before
    assert num_dropped.tolist() == [0, 0, 0]
    assert sums.tolist() == [256.0] * 3


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn"])
def test_a_quantised_pool_reads_back_what_was_written_within_its_bounds(dtype):
    cache = zeros(dtype=dtype, granularity="token")
    assert cache.is_quantized
    assert not zeros().is_quantized
    assert {name: getattr(cache, name) for name in SIZES} == SIZES
    rows = 3 * 8 * 4 * 2
    assert cache.nbytes == 2 * rows * (8 + 4)  # a byte an element, and a scale a row

    key, value = np.random.default_rng(0).standard_normal((2, 5, 2, 8)).astype(np.float32)
    slots = jnp.int32([4, 5, 6, 7, 20])
    step = jax.jit(lambda cache: cache.write(1, key, value, slots), donate_argnums=0)
    assert_in_place(step, cache)
    cache, num_dropped = step(cache)
    assert num_dropped == 0
    keys, values = cache.gather(1, jnp.int32([[1, 5]]))
    for new, read in ((key, keys), (value, values)):
        actual = np.asarray(read[0, [0, 1, 2, 3, 4]], np.float32)
        bound = np.abs(new).max(-1, keepdims=True) / 127 + np.abs(new) / 16
        assert (np.abs(actual - new) <= bound).all()

    query = np.random.default_rng(1).standard_normal((1, 4, 8)).astype(np.float32)
    table, starts, lens = jnp.int32([[1, 5]]), jnp.int32([0, 1]), jnp.int32([5])
    attended, num_dropped = cache.attend(1, query, table, starts, lens)
    floats = zeros(dtype=jnp.float32)
    floats, _ = floats.write(1, key, value, slots)
    expected, _ = floats.attend(1, query, table, starts, lens)
    assert num_dropped == 0
    np.testing.assert_allclose(attended, expected, atol=0.15)
    assert not np.array_equal(attended, expected)
