"""Caches go through jit, scan, AOT, jax.export and the persistent compilation cache."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from pagedkv import PagedAttentionCache, PagedAttentionCacheView, PagedAttentionMetadata
from pagedkv._ffi_cpu import registrations
from pagedkv.cache import PartitionAxis
from pagedkv.compat import easydel_0_1_3
from pagedkv.testing import assert_in_place
from seed_cache_golden import make_metadata, written_generate

PROGRAM = Path(__file__).with_name("export_program.py")


def decode_step(cache, rows, step):
    """Writes a token of each row in every layer, and sums what it finds of page 1."""
    for view in cache.views:
        key_pages, _, view = view.concatenate_to_cache(rows, -rows, step)
        rows = rows + key_pages[:, 1, 0].sum()
        cache = cache.replace_view(view)
    return cache, rows


def generate_step(positions, tables):
    return PagedAttentionMetadata.for_generate(jnp.int32(positions), jnp.int32(tables))


def test_jit_compiles_once_for_equal_structures(one_device, metadata):
    traces = []

    @jax.jit
    def step(cache, rows, step):
        traces.append(1)
        return decode_step(cache, rows, step)

    cache = PagedAttentionCache.init_cache(one_device, metadata)
    rows = jnp.ones([2, 4, 8])
    for position in range(3):
        cache, _ = step(cache, rows, generate_step([position, 0], [[1], [2]]))
    other = PagedAttentionCache.init_cache(one_device, make_metadata())
    step(other, rows, generate_step([0, 0], [[1], [2]]))
    assert len(traces) == 1
    assert isinstance(cache, PagedAttentionCache)
    assert np.asarray(cache.views[1].key_pages)[0, 1, :, 0].tolist() == [33.0, 33.0, 33.0, 0.0]


def test_scan_over_decode_steps_is_in_place(one_device):
    metadata = make_metadata(num_pages_per_layer=256, page_size=16, kv_head_dim_size=64)
    cache = PagedAttentionCache.init_cache(one_device, metadata)
    tables = jnp.int32([[1, 2], [3, 4]])
    num_steps = 20

    def run(cache, rows):
        def body(cache, position):
            step = PagedAttentionMetadata.for_generate(position + jnp.int32([0, 2]), tables)
            for view in cache.views:
                cache = cache.replace_view(view.write_generate_to_cache(rows, -rows, step))
            return cache, position

        return jax.lax.scan(body, cache, jnp.arange(num_steps, dtype=jnp.int32))

    rows = jnp.arange(2 * 4 * 64, dtype=jnp.float32).reshape(2, 4, 64)
    jitted = jax.jit(run, donate_argnums=0)
    assert_in_place(jitted, cache, rows, pools=cache)
    expected = np.zeros(metadata.pages_shape, np.float32)
    for position in range(num_steps):
        expected = written_generate(
            expected, np.asarray(rows), [position, position + 2], np.asarray(tables)
        )
    cache, _ = jitted(cache, rows)
    for view in cache.views:
        np.testing.assert_array_equal(np.asarray(view.key_pages), expected)
        np.testing.assert_array_equal(np.asarray(view.value_pages), -expected)


def test_vmap_over_pools(one_device, metadata):
    view = PagedAttentionCacheView.init(one_device, metadata, 0)
    pools = jax.tree.map(lambda pages: jnp.stack([pages, pages + 1]), view)
    rows = jnp.full([2, 1, 4, 8], 7.0)
    step = generate_step([[0], [5]], [[[1, 2]], [[3, 4]]])
    step_axes = PagedAttentionMetadata(None, None, None, 0, 0)
    write = jax.vmap(PagedAttentionCacheView.write_generate_to_cache, in_axes=(0, 0, 0, step_axes))
    written = jax.jit(write)(pools, rows, rows, step)
    for i, (page, offset) in enumerate([(1, 0), (4, 1)]):
        expected = np.full(metadata.pages_shape, i, np.float32)
        expected[:, page, offset] = 7
        np.testing.assert_array_equal(np.asarray(written.key_pages[i]), expected)


def test_has_no_derivative(one_device, metadata):
    view = PagedAttentionCacheView.init(one_device, metadata, 0)
    step = generate_step([0], [[1]])

    def loss(rows):
        return view.write_generate_to_cache(rows, rows, step).key_pages.sum()

    with pytest.raises(ValueError, match=r"\[write_kv\] has no derivative"):
        jax.grad(loss)(jnp.ones([1, 4, 8]))


def test_compiles_ahead_of_time_from_shapes(one_device, metadata):
    shapes = jax.eval_shape(lambda: PagedAttentionCache.init_cache(one_device, metadata))
    rows = jax.ShapeDtypeStruct((2, 4, 8), jnp.float32)
    step = jax.eval_shape(lambda: generate_step([0, 1], [[1], [2]]))
    compiled = jax.jit(decode_step, donate_argnums=0).lower(shapes, rows, step).compile()
    cache = PagedAttentionCache.init_cache(one_device, metadata)
    arguments = jnp.ones([2, 4, 8]), generate_step([0, 3], [[1], [2]])
    expected = decode_step(cache, *arguments)
    got = compiled(cache, *arguments)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for array, wanted in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(array), np.asarray(wanted))


def run_program(*arguments):
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(("types", "num_devices"), [("mutable", 1), ("functional", 4)])
def test_program_exported_here_runs_in_another_process(tmp_path, types, num_devices):
    cache_type = {
        "functional": PagedAttentionCache,
        "mutable": easydel_0_1_3.PagedAttentionCache,
    }[types]
    mesh = jax.make_mesh((num_devices,), ("tp",), devices=jax.devices()[:num_devices])
    axes = PartitionAxis(head_axis="tp")
    metadata = make_metadata(partition_axis=axes)
    cache = cache_type.init_cache(mesh, metadata)
    rows = jnp.arange(2 * 4 * 8, dtype=jnp.float32).reshape(2, 4, 8)
    step = generate_step([1, 4], [[1, 2], [3, 4]])
    allowed = [jax.export.DisabledSafetyCheck.custom_call(name) for name in registrations()]
    exported = jax.export.export(jax.jit(decode_step), disabled_checks=allowed)(cache, rows, step)
    path = tmp_path / "program"
    path.write_bytes(exported.serialize())
    written, _ = decode_step(cache_type.init_cache(mesh, metadata), rows, step)
    sums = [str(float(leaf.sum())) for leaf in jax.tree.leaves(written)]
    assert run_program("run", path, types, num_devices) == sums
    again = jax.export.deserialize(bytearray(path.read_bytes()))
    assert again.in_tree == exported.in_tree
    assert again.out_tree == exported.out_tree


def test_exported_program_needs_the_devices_of_its_mesh(tmp_path):
    mesh = jax.make_mesh((8,), ("tp",))
    view = PagedAttentionCacheView.init(mesh, make_metadata(num_kv_heads=8), 0)
    exported = jax.export.export(jax.jit(lambda view: view.layer_index))(view)
    path = tmp_path / "program"
    path.write_bytes(exported.serialize())
    text = run_program("load", path, "functional", 4)
    assert " ".join(text).startswith("[PagedAttentionCacheView] the program is for the devices [0,")


def test_second_process_finds_the_program_compiled(tmp_path):
    assert run_program("compile", tmp_path, "functional", 4) == ["0"]
    assert run_program("compile", tmp_path, "functional", 4) == ["1"]


@pytest.mark.parametrize("spec", [PartitionSpec("tp"), PartitionSpec()], ids=str)
def test_scan_with_sharded_pages(spec):
    mesh = jax.make_mesh((4,), ("tp",), devices=jax.devices()[:4])
    cache = PagedAttentionCache.init_cache(mesh, make_metadata(), kv_pages_sharding=spec)
    rows = jnp.ones([1, 4, 8])

    @jax.jit
    def run(cache):
        def body(cache, position):
            step = PagedAttentionMetadata.for_generate(position[None], jnp.int32([[2, 5]]))
            return decode_step(cache, rows, step)[0], None

        return jax.lax.scan(body, cache, jnp.arange(7, dtype=jnp.int32))[0]

    written = run(cache)
    expected = np.zeros((9, 4))
    expected[[2, 2, 2, 2, 5, 5, 5], [0, 1, 2, 3, 0, 1, 2]] = 1
    np.testing.assert_array_equal(np.asarray(written.views[0].key_pages)[3, :, :, 0], expected)
    assert written.views[0].key_pages.sharding == cache.views[0].key_pages.sharding
