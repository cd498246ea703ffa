"""Whether an installed pagedkv works: both planes once, and no pool copied. Wheels are tested with it.

    python examples/smoke.py

Exits with 0 if so.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pagedkv
from pagedkv import CacheGroupSpec, CacheManager, FullAttentionSpec, KVPool, Request
from pagedkv.testing import assert_in_place


def write(pool, key, value, slots):
    return pool.write(0, key, value, slots)


def main() -> None:
    spec = FullAttentionSpec(page_size=16, num_kv_heads=2, head_size=64, dtype="bfloat16")
    manager = CacheManager(64, [CacheGroupSpec(spec)], max_model_len=512)
    request = Request("first", range(40))
    assert manager.match(request) == 0
    assert manager.allocate(request, 40)
    pool = KVPool.zeros(
        num_layers=1, num_pages=64, page_size=16, num_kv_heads=2, head_dim=64, dtype=jnp.bfloat16
    )
    step = jax.jit(write, donate_argnums=0)
    key = value = jnp.arange(40 * 2 * 64, dtype=jnp.bfloat16).reshape(40, 2, 64)
    slots = manager.slot_mapping([request], [40])
    assert_in_place(step, pool, key, value, slots)
    pool, num_dropped = step(pool, key, value, slots)
    keys, _ = pool.gather(0, manager.page_table([request]))
    np.testing.assert_array_equal(np.asarray(keys[0, :40]), np.asarray(key))
    assert int(num_dropped) == 0
    manager.commit(request, 40)
    assert manager.match(Request("second", range(40))) == 32
    manager.check_invariants()
    print(f"pagedkv in {pagedkv.__path__[0]} works with jax {jax.__version__}")


if __name__ == "__main__":
    main()
