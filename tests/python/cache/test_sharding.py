"""A cache cut over eight devices writes what one device writes, each device its own part."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from pagedkv import PagedAttentionCacheView, PagedAttentionMetadata
from pagedkv.testing import assert_in_place
from seed_cache_golden import (
    filled,
    make_metadata,
    random_rows,
    written_generate,
    written_prefill,
)

SPECS = [
    PartitionSpec("tp", None, None, None),
    PartitionSpec(None, "dp"),
    PartitionSpec("tp", "dp"),
    PartitionSpec(("dp", "tp")),
    PartitionSpec(None, ("tp", "dp")),
    PartitionSpec("dp", None, None, "tp"),
    PartitionSpec(),
]
KINDS = [AxisType.Auto, AxisType.Explicit]


def make_mesh(kind):
    return jax.make_mesh((2, 4), ("dp", "tp"), axis_types=(kind, kind))


def make_view(kind, spec, **sizes):
    sizes = {"num_kv_heads": 8, "num_pages_per_layer": 16, **sizes}
    mesh = make_mesh(kind)
    view = PagedAttentionCacheView.init(mesh, make_metadata(**sizes), 0, kv_pages_sharding=spec)
    numbers = filled(view)
    return view.replace(
        key_pages=jax.device_put(numbers.key_pages, view.kv_pages_sharding),
        value_pages=jax.device_put(numbers.value_pages, view.kv_pages_sharding),
    )


def mixed_step():
    """A prompt of 6 tokens padded to 8, and four rows: two that write, an idle and a lost one."""
    tables = np.int32([[1, 15], [9, 0], [3, 3], [16, 99]])
    return PagedAttentionMetadata(
        np.int32(6), np.arange(8), np.int32([14, 2, 0]), np.int32([5, 3, -1, 0]), tables
    )


def expected_pages(view, key, value, step):
    for pages, rows in ((view.key_pages, key), (view.value_pages, value)):
        pages = written_prefill(np.asarray(pages), rows[:8], 6, step.prefill_page_table)
        tables = step.generate_page_table
        yield written_generate(pages, rows[8:], step.generate_pos, tables)


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_writes_what_one_device_writes(kind, spec):
    view = make_view(kind, spec)
    key, value = random_rows(np.random.default_rng(0), 12, 8, 8)
    step = mixed_step()
    expected = list(expected_pages(view, key, value, step))
    for write in (
        PagedAttentionCacheView.concatenate_to_cache,
        jax.jit(PagedAttentionCacheView.concatenate_to_cache),
    ):
        *pages, written = write(view, key, value, step)
        for array, wanted in zip(pages, expected, strict=True):
            np.testing.assert_array_equal(np.asarray(array), wanted)
        assert written.key_pages.sharding.is_equivalent_to(view.kv_pages_sharding, 4)
        assert written.kv_pages_sharding == view.kv_pages_sharding


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_later_steps_find_the_program_of_the_first(kind, spec):
    sizes = make_metadata(num_kv_heads=8, num_pages_per_layer=16)
    view = PagedAttentionCacheView.init(make_mesh(kind), sizes, 0, kv_pages_sharding=spec)
    step = PagedAttentionMetadata.for_generate(np.int32([3]), np.int32([[2]]))

    @functools.partial(jax.jit, donate_argnums=0)
    def write(view, rows):
        return view.write_generate_to_cache(rows, rows, step)

    for _ in range(3):
        view = write(view, np.ones([1, 8, 8], np.float32))
    assert write._cache_size() == 1


@pytest.mark.parametrize("spec", SPECS[:4], ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_is_in_place_on_each_device(kind, spec):
    sizes = {"page_size": 16, "kv_head_dim_size": 64, "num_pages_per_layer": 512}
    view = make_view(kind, spec, dtype=jnp.bfloat16, **sizes)
    step = PagedAttentionMetadata.for_generate(np.int32([3]), np.int32([[2]]))
    write = jax.jit(PagedAttentionCacheView.write_generate_to_cache, donate_argnums=0)
    rows = jnp.ones([1, 8, 64], jnp.bfloat16)
    assert_in_place(write, view, rows, rows, step, pools=view)
    text = write.lower(view, rows, rows, step).compile().as_text()
    assert not [line for line in text.splitlines() if "all-gather" in line and "512" in line]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_inside_a_shard_map_of_the_caller_arrays_are_local(kind):
    view = make_view(kind, PartitionSpec("tp", None, None, None))
    key, value = random_rows(np.random.default_rng(1), 12, 8, 8)
    step = mixed_step()
    expected = list(expected_pages(view, key, value, step))
    pages_spec, rows_spec = view.kv_pages_sharding.spec, PartitionSpec(None, "tp", None)

    def attend(view, key, value, step):
        assert view.key_pages.shape == (2, 16, 4, 8)
        return view.concatenate_to_cache(key, value, step)

    mapped = jax.jit(
        jax.shard_map(
            attend,
            mesh=view.kv_pages_sharding.mesh,
            in_specs=(pages_spec, rows_spec, rows_spec, PartitionSpec()),
            out_specs=pages_spec,
        )
    )
    sharding = NamedSharding(view.kv_pages_sharding.mesh, rows_spec)
    key, value = (jax.device_put(rows, sharding) for rows in (key, value))
    key_pages, value_pages, written = mapped(view, key, value, step)
    np.testing.assert_array_equal(np.asarray(key_pages), expected[0])
    np.testing.assert_array_equal(np.asarray(value_pages), expected[1])
    assert written.key_pages.sharding == view.key_pages.sharding


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_inside_a_shard_map_over_another_axis_the_rest_is_cut(kind):
    """The caller maps requests over dp, each with a pool of its own; heads stay with the view."""
    view = make_view(kind, PartitionSpec("tp"))
    key, value = random_rows(np.random.default_rng(2), 2, 8, 8)
    step = PagedAttentionMetadata.for_generate(np.int32([1, 2]), np.int32([[3], [5]]))
    pools = PartitionSpec(None, "dp")  # rank-local ids

    mapped = jax.jit(
        jax.shard_map(
            PagedAttentionCacheView.write_generate_to_cache,
            mesh=view.kv_pages_sharding.mesh,
            in_specs=(pools, PartitionSpec("dp"), PartitionSpec("dp"), _step_specs("dp")),
            out_specs=pools,
            axis_names={"dp"},
        )
    )
    written = mapped(view, key, value, step)
    for pages, rows, got in (
        (view.key_pages, key, written.key_pages),
        (view.value_pages, value, written.value_pages),
    ):
        halves = np.split(np.asarray(pages), 2, axis=1)
        halves = [
            written_generate(half, rows[i : i + 1], [pos], [[page]])
            for i, (half, pos, page) in enumerate(zip(halves, (1, 2), (3, 5), strict=True))
        ]
        np.testing.assert_array_equal(np.asarray(got), np.concatenate(halves, axis=1))


def _step_specs(axis):
    absent = PartitionSpec()
    return PagedAttentionMetadata(absent, absent, absent, PartitionSpec(axis), PartitionSpec(axis))


def test_view_made_by_hand_may_have_no_sharding():
    view = make_view(AxisType.Auto, PartitionSpec()).replace(kv_pages_sharding=None)
    key, value = random_rows(np.random.default_rng(3), 12, 8, 8)
    step = mixed_step()
    expected = list(expected_pages(view, key, value, step))
    *pages, _ = view.concatenate_to_cache(key, value, step)
    for array, wanted in zip(pages, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(array), wanted)
