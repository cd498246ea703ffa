"""What a caller still holds when a step that was given its pools fails."""

import jax
import numpy as np
import ops_oracle as oracle
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from pagedkv.ops import write_kv

PAGES, PAGE_SIZE, HEADS, DIM = 8, 4, 4, 8


def make_arrays(slots, sharding=None):
    rng = np.random.default_rng(0)
    shape = (PAGES, PAGE_SIZE, HEADS, DIM)
    pools = [oracle.random_array(rng, shape, "float32") for _ in range(2)]
    rows = [oracle.random_array(rng, (len(slots), HEADS, DIM), "float32") for _ in range(2)]
    return [*(jax.device_put(a, sharding) for a in pools), *map(jax.device_put, rows), slots]


def jitted(*, donated=True, mode="raise"):
    return jax.jit(
        lambda *arrays: tuple(write_kv(*arrays, mode=mode)), donate_argnums=(0, 1) * donated
    )


BAD_SLOTS = np.int32([3, PAGES * PAGE_SIZE])


def sharding(kind):
    mesh = jax.make_mesh((2, 4), ("dp", "tp"), axis_types=(kind,) * 2)
    return NamedSharding(mesh, P("dp", None, "tp"))


@pytest.mark.parametrize("kind", [None, AxisType.Auto, AxisType.Explicit])
def test_an_error_at_run_time_takes_the_donated_pools(kind):
    arrays = make_arrays(BAD_SLOTS, None if kind is None else sharding(kind))
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"\[write_kv\] slot 32 at position 1"):
        jax.block_until_ready(jitted()(*arrays))
    assert [array.is_deleted() for array in arrays[:4]] == [True, True, False, False]


def test_an_error_at_run_time_leaves_pools_that_were_not_donated():
    arrays = make_arrays(BAD_SLOTS)
    before = [np.asarray(array).copy() for array in arrays[:2]]
    with pytest.raises(jax.errors.JaxRuntimeError):
        jax.block_until_ready(jitted(donated=False)(*arrays))
    for array, wanted in zip(arrays[:2], before, strict=True):
        oracle.assert_same(array, wanted)


def test_a_bad_argument_leaves_the_donated_pools():
    arrays = make_arrays(BAD_SLOTS)
    with pytest.raises(TypeError, match=r"\[write_kv\] slot_mapping must be int32"):
        jitted()(*arrays[:4], np.uint32([3, 4]))
    with pytest.raises(ValueError, match=r"\[write_kv\] key must have shape"):
        jitted()(*arrays[:2], arrays[2][:, 1:], *arrays[3:])
    assert not any(array.is_deleted() for array in arrays[:4])
    jax.block_until_ready(jitted()(*arrays[:4], np.int32([3, 4])))  # they can still be donated
    assert arrays[0].is_deleted()


def test_pools_that_cannot_be_partitioned_are_left():
    mesh = sharding(AxisType.Auto).mesh
    arrays = make_arrays(BAD_SLOTS, NamedSharding(mesh, P(None, None, None, "tp")))
    with pytest.raises(jax.errors.JaxRuntimeError, match="got head_dim over 'tp'"):
        jitted()(*arrays)
    assert not any(array.is_deleted() for array in arrays[:4])


def test_dropping_keeps_the_pools_and_tells():
    arrays = make_arrays(BAD_SLOTS)
    before = [np.asarray(array) + 0 for array in arrays]
    keys, values, num_dropped = jitted(mode="drop")(*arrays)
    expected = oracle.write_kv(*before)
    oracle.assert_same(keys, expected[0])
    oracle.assert_same(values, expected[1])
    assert int(num_dropped) == 1
