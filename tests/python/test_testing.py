"""assert_in_place accepts what XLA does in place, and names each way to lose it."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from pagedkv.kv_pool import KVPool
from pagedkv.ops import gather_pages, write_kv
from pagedkv.testing import assert_in_place

ROW = jnp.ones([2, 4, 64], jnp.bfloat16)
SLOTS = jnp.int32([3, 40])


def pools(dtype=jnp.bfloat16):
    return [jnp.zeros([256, 16, 4, 64], dtype) for _ in range(2)]


def stacked():
    return KVPool.zeros(
        num_layers=3, num_pages=256, page_size=16, num_kv_heads=4, head_dim=64, dtype=jnp.bfloat16
    )


def write(key_pages, value_pages):
    return write_kv(key_pages, value_pages, ROW, ROW, SLOTS)


def in_carry(cache):
    def body(cache, layer):
        return cache.write(layer, ROW, ROW, SLOTS)

    return jax.lax.scan(body, cache, jnp.arange(3, dtype=jnp.int32))


# In place


@pytest.mark.parametrize("pool_arguments", [None, "given"])
def test_accepts_a_donated_write(pool_arguments):
    arrays = pools()
    chosen = None if pool_arguments is None else arrays
    assert_in_place(jax.jit(write, donate_argnums=(0, 1)), *arrays, pools=chosen)


def test_accepts_a_stacked_pool_as_carry():
    assert_in_place(jax.jit(in_carry, donate_argnums=0), stacked())


def test_accepts_shapes_in_place_of_arrays():
    assert_in_place(jax.jit(in_carry, donate_argnums=0), jax.eval_shape(stacked))


def test_accepts_keyword_static_and_unused_arguments():
    def step(times, unused, *, cache):
        del unused
        for _ in range(times):
            cache, _ = in_carry(cache)
        return cache

    jitted = jax.jit(step, static_argnums=0, donate_argnames="cache")
    cache = stacked()
    assert_in_place(jitted, 2, jnp.zeros(3), cache=cache)
    assert_in_place(jitted, 2, jnp.zeros(3), cache=cache, pools=cache)


def test_takes_no_small_donated_array_for_a_pool():
    def step(count, cache):
        return count + 1, in_carry(cache)

    assert_in_place(jax.jit(step, donate_argnums=(0, 1)), jnp.int32(0), stacked())


def test_counts_packed_pools_in_their_true_bytes():
    row = ROW.astype(jnp.int4)
    step = jax.jit(lambda k, v: write_kv(k, v, row, row, SLOTS), donate_argnums=(0, 1))
    assert_in_place(step, *pools(jnp.int4))


def test_runs_nothing_and_donates_nothing():
    arrays = pools()
    assert_in_place(jax.jit(write, donate_argnums=(0, 1)), *arrays)
    assert not any(pool.is_deleted() for pool in arrays)


# Not in place


def assert_refused(text, *args, **kwargs):
    with pytest.raises(AssertionError, match=text) as caught:
        assert_in_place(*args, **kwargs)
    assert "Usual causes: the pool is not donated" in str(caught.value)


def test_names_a_missing_donation():
    assert_refused("no argument is donated", jax.jit(write), *pools())


def test_names_the_pool_that_is_not_donated():
    arrays = pools()
    step = jax.jit(write, donate_argnums=0)
    text = r"the argument bfloat16\[256, 16, 4, 64\] is not donated"
    assert_refused(text, step, *arrays, pools=arrays)
    assert_refused("results share 2.00 MiB", step, *arrays, pools=arrays)


def test_names_a_copy_of_a_pool_that_was_not_asked_about():
    assert_refused(r"copies bf16\[256,16,4,64\]", jax.jit(write, donate_argnums=0), *pools())


def test_refuses_a_reshape_around_the_call():
    def step(key_pages, value_pages):
        written = write(*(p.reshape(256, 16, 4, 64) for p in (key_pages, value_pages)))
        return [pool.reshape(4096, 4, 64) for pool in written[:2]]

    flat = [pool.reshape(4096, 4, 64) for pool in pools()]
    assert_refused(r"copies bf16\[4096,4,64\]", jax.jit(step, donate_argnums=(0, 1)), *flat)


def test_refuses_a_read_of_the_old_pool():
    def step(key_pages, value_pages):
        old = gather_pages(key_pages, SLOTS // 16).rows
        return write(key_pages, value_pages), old

    assert_refused(r"copies bf16\[256,16,4,64\]", jax.jit(step, donate_argnums=(0, 1)), *pools())


def test_refuses_a_scan_from_xs_to_ys():
    def step(cache):
        def body(_, layer):
            return None, write(*layer)[:2]

        return jax.lax.scan(body, None, (cache.key_pages, cache.value_pages))[1]

    jitted = jax.jit(step, donate_argnums=0)
    assert_refused(r"temporaries take .* MiB, the smallest pool has 6.00 MiB", jitted, stacked())


def test_refuses_a_layer_sliced_out_and_put_back():
    def step(cache):
        def body(cache, layer):
            written = write(cache.key_pages[layer], cache.value_pages[layer])
            return KVPool(
                cache.key_pages.at[layer].set(written.key_pages),
                cache.value_pages.at[layer].set(written.value_pages),
            ), None

        return jax.lax.scan(body, cache, jnp.arange(3))[0]

    jitted = jax.jit(step, donate_argnums=0)
    assert_refused(r"copies bf16\[256,16,4,64\].* of a layer of it", jitted, stacked())


def test_refuses_a_change_of_dtype():
    def step(key_pages, value_pages):
        return [pool.astype(jnp.float32) for pool in write(key_pages, value_pages)[:2]]

    assert_refused("results share 0.00 MiB", jax.jit(step, donate_argnums=(0, 1)), *pools())


@pytest.fixture
def sharded():
    mesh = jax.make_mesh((4,), ("tp",), axis_types=(AxisType.Auto,))
    spec = P(None, None, "tp", None)
    return mesh, spec, [jax.device_put(pool, NamedSharding(mesh, spec)) for pool in pools()]


def test_refuses_sharded_pools_that_are_gathered(sharded):
    mesh, _, arrays = sharded

    def gathered(*pools):
        whole = jax.lax.with_sharding_constraint(pools, NamedSharding(mesh, P()))
        return write(*whole)

    assert_refused(
        r"all-gather\S* copies \w+\[256,16,4,64\]",
        jax.jit(gathered, donate_argnums=(0, 1)),
        *arrays,
    )


def test_accepts_sharded_pools(sharded):
    _, _, arrays = sharded
    assert_in_place(jax.jit(write, donate_argnums=(0, 1)), *arrays, pools=arrays)


def test_accepts_sharded_pools_inside_shard_map(sharded):
    mesh, spec, arrays = sharded

    def local(key_pages, value_pages):
        return write_kv(key_pages, value_pages, ROW[:, :1], ROW[:, :1], SLOTS)[:2]

    step = jax.shard_map(local, mesh=mesh, in_specs=(spec, spec), out_specs=(spec, spec))
    assert_in_place(jax.jit(step, donate_argnums=(0, 1)), *arrays, pools=arrays)


# Wrong use


def test_refuses_a_function_that_is_not_jitted():
    with pytest.raises(TypeError, match=r"function must be the result of jax.jit"):
        assert_in_place(write, *pools())


def test_refuses_a_pool_that_is_no_argument():
    with pytest.raises(ValueError, match=r"pools has float32\[3\], which is not among the arg"):
        assert_in_place(jax.jit(write, donate_argnums=(0, 1)), *pools(), pools=jnp.zeros(3))
