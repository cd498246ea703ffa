"""What tests run in another process.

run FILE TYPES DEVICES      calls an exported program, and prints the sum of each array of pages
load FILE TYPES DEVICES     loads one, and prints why it cannot
compile DIR TYPES DEVICES   compiles a step, and prints how often JAX found it in DIR
"""

import os
import sys

ACTION, PATH, TYPES, NUM_DEVICES = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={NUM_DEVICES}"
sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

import jax
import jax.export
import jax.monitoring
import jax.numpy as jnp
from pagedkv import PagedAttentionCache, PagedAttentionMetadata, ops
from pagedkv.compat import easydel_0_1_3
from seed_cache_golden import make_metadata


def main():
    mesh = jax.make_mesh((NUM_DEVICES,), ("tp",))
    types = {"functional": PagedAttentionCache, "mutable": easydel_0_1_3.PagedAttentionCache}
    cache = types[TYPES].init_cache(mesh, make_metadata())
    rows = jnp.arange(2 * 4 * 8, dtype=jnp.float32).reshape(2, 4, 8)
    tables = jnp.int32([[1, 2], [3, 4]])
    step = PagedAttentionMetadata.for_generate(jnp.int32([1, 4]), tables)
    if ACTION == "compile":
        compile_step(cache, rows, step)
        return
    with open(PATH, "rb") as file:
        data = bytearray(file.read())
    try:
        exported = jax.export.deserialize(data)
    except ValueError as error:
        print(error)
        return
    ops.register_targets()
    written, _ = exported.call(cache, rows, step)
    assert type(written) is types[TYPES]
    print(*(float(leaf.sum()) for leaf in jax.tree.leaves(written)))


def compile_step(cache, rows, step):
    hits = []
    jax.monitoring.register_event_listener(
        lambda event, **_: hits.append(event) if event.endswith("/cache_hits") else None
    )

    def write(cache, rows, step):
        for view in cache.views:
            cache = cache.replace_view(view.write_generate_to_cache(rows, rows, step))
        return cache

    jax.config.update("jax_compilation_cache_dir", PATH)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    lowered = jax.jit(write, donate_argnums=0).lower(cache, rows, step)
    hits.clear()
    lowered.compile()
    print(len(hits))


main()
