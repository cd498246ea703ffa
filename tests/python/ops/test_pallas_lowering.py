"""The public ops, lowered ahead of time for TPUs that are not there."""

import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P
from jax.sharding import use_abstract_mesh
from pagedkv import KVLayout
from pagedkv.ops import (
    copy_pages,
    gather_into,
    gather_pages,
    gather_through,
    move_pages,
    page_row_bytes,
    paged_attention,
    scatter_pages,
    write_kv,
)
from tpu_mesh import tpu_mesh

KINDS = pytest.mark.parametrize("kind", ["TPU v5e", "TPU v6e"])
LAYERS, PAGES, PAGE_SIZE = 2, 64, 16


def array(shape, dtype="int32"):
    return jax.ShapeDtypeStruct(shape, dtype)


def lower(function, *arguments, kind="TPU v5e", size=1):
    """The program as MLIR."""
    with use_abstract_mesh(tpu_mesh(kind, size)):
        return jax.jit(function).trace(*arguments).lower(lowering_platforms=("tpu",)).as_text()


def kernels(program):
    """The name of each kernel, and its operands that results take the memory of."""
    calls = [line for line in program.splitlines() if "@tpu_custom_call" in line]
    return [
        (
            re.search(r'kernel_name = "(\w+)"', line)[1],
            [int(i) for i in re.findall(r"operand_index = (\d+)", line)],
        )
        for line in calls
    ]


def pools_of(layout, dtype="bfloat16", dim=None):
    heads = 1 if layout.is_latent else 8
    dim = dim or (64 if layout is KVLayout.SIDE_BY_SIDE else 128)
    shapes = layout.pool_shapes(
        num_pages=PAGES,
        page_size=PAGE_SIZE,
        num_kv_heads=heads,
        head_dim=dim,
        dtype_bits=8 * jnp.dtype(dtype).itemsize,
    )
    rows = array((10, dim) if layout.is_latent else (10, heads, dim), dtype)
    return [array((LAYERS, *shape), dtype) for shape in shapes], rows


def writer(layout, layer=1):
    def write(slots, row, *pools):
        pools = [*pools, None][:2]
        value = None if layout.is_latent else row
        return write_kv(*pools, row, value, slots, layer=layer, layout=layout)

    return write


ROWS, TILES = "pagedkv_write_rows", "pagedkv_write_tiles"
# The kernel, and where its pools are among its operands: behind ids, layer and rows.
WRITES = {
    KVLayout.NHD: (ROWS, [4, 5]),
    KVLayout.HND: (TILES, [5, 6]),
    KVLayout.HEADS_FIRST: (TILES, [5, 6]),
    KVLayout.FUSED: (ROWS, [3]),
    KVLayout.FUSED_PACKED: (ROWS, [3]),
    KVLayout.SIDE_BY_SIDE: (ROWS, [3]),
    KVLayout.LATENT: (TILES, [4]),
    KVLayout.LATENT_PACKED: (TILES, [4]),
}


@KINDS
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "float8_e4m3fn"])
@pytest.mark.parametrize("layout", WRITES, ids=lambda layout: layout.name)
def test_write_kv_takes_the_memory_of_the_pools(layout, dtype, kind):
    pools, row = pools_of(layout, dtype)
    program = lower(writer(layout), array((10,)), row, *pools, kind=kind)
    assert kernels(program) == [WRITES[layout]]
    assert "stablehlo.scatter" not in program


@pytest.mark.parametrize(
    ("layout", "dim"),
    [(KVLayout.NHD, 64), (KVLayout.LATENT, 576), (KVLayout.LATENT_TRANSPOSED, 128)],
    ids=lambda value: getattr(value, "name", value),
)
def test_write_kv_is_a_scatter_where_xla_has_another_order_of_axes(layout, dim):
    pools, row = pools_of(layout, dim=dim)
    program = lower(writer(layout), array((10,)), row, *pools)
    assert kernels(program) == []
    assert "stablehlo.scatter" in program


@KINDS
@pytest.mark.parametrize("layout", [KVLayout.NHD, KVLayout.HEADS_FIRST], ids=lambda l: l.name)
def test_page_ops_take_the_memory_of_the_pools(layout, kind):
    pools, _ = pools_of(layout)
    pool, ids = pools[0], array((10,))
    axis = 1 + layout.page_axis
    page = pool.shape[1:axis] + pool.shape[axis + 1 :]
    rows = array((10, *page), pool.dtype)
    moved = array((10, page_row_bytes(pools, layout=layout, stacked=True)), "uint8")

    def names_and_aliases(function, *arguments):
        return kernels(lower(function, *arguments, kind=kind))

    on = {"layer": 1, "layout": layout}
    stacked = {"stacked": True, "layout": layout}
    assert names_and_aliases(lambda p, i: gather_pages(p, i, **on), pool, ids) == [
        ("pagedkv_gather", [])
    ]
    assert names_and_aliases(lambda p, i, r: gather_into(p, i, r, **on), pool, ids, rows) == [
        ("pagedkv_gather", [4])
    ]
    assert names_and_aliases(lambda p, i: gather_through(p, i, **on), pool, ids) == [
        ("pagedkv_gather", [2])
    ]
    assert names_and_aliases(lambda p, i, r: scatter_pages(p, i, r, **on), pool, ids, rows) == [
        ("pagedkv_scatter", [3])
    ]
    assert names_and_aliases(lambda p, s, t: copy_pages(p, s, t, **stacked), pools, ids, ids) == [
        ("pagedkv_copy", [2, 3])
    ]
    assert (
        names_and_aliases(
            lambda p, i, r: move_pages(p, i, r, to="rows", **stacked), pools, ids, moved
        )
        == [("pagedkv_gather", [])] * 2
    )
    assert (
        names_and_aliases(
            lambda p, i, r: move_pages(p, i, r, to="pages", **stacked), pools, ids, moved
        )
        == [("pagedkv_scatter", [3])] * 2
    )


def test_each_device_of_a_mesh_runs_the_kernel_on_its_part():
    layout = KVLayout.NHD
    pools, row = pools_of(layout)
    heads = P(None, None, None, "x")

    def step(slots, row, keys, values):
        keys, values, num_dropped = writer(layout)(slots, row, keys, values)
        return keys, values, num_dropped

    sharded = jax.shard_map(
        step, in_specs=(P(), P(None, "x"), heads, heads), out_specs=(heads, heads, P())
    )
    program = lower(sharded, array((10,)), row, *pools, size=4)
    assert kernels(program) == [WRITES[layout]]
    assert f"{LAYERS}x{PAGES}x{PAGE_SIZE}x2x128xbf16" in program  # 8 heads on 4 devices


def test_programs_for_cpus_hold_no_kernel():
    pools, row = pools_of(KVLayout.NHD)
    program = jax.jit(writer(KVLayout.NHD)).lower(array((10,)), row, *pools).as_text()
    assert "pagedkv.write_kv" in program
    assert "tpu_custom_call" not in program


def attention_call(layout, *, tokens=8, requests=8, **options):
    """paged_attention and its operands, of 32 query heads and 8 kv heads of 128 elements."""
    shapes = layout.pool_shapes(
        num_pages=6, page_size=16, num_kv_heads=8, head_dim=128, dtype_bits=32
    )
    pools = [array(shape, "float32") for shape in shapes]
    ids = [array((requests, 4)), array((requests + 1,)), array((requests,))]

    def attend(query, table, starts, lens, *pools):
        pools = (*pools, None)[:2]
        return paged_attention(query, *pools, table, starts, lens, layout=layout, **options)

    return attend, array((tokens, 32, 128), "float32"), *ids, *pools


@KINDS
@pytest.mark.parametrize(
    ("layout", "options"),
    [
        (KVLayout.FUSED, {}),
        (KVLayout.FUSED, {"tokens": 40, "requests": 3, "sliding_window": 20, "soft_cap": 30.0}),
        (KVLayout.FUSED_PACKED, {"tokens": 40, "requests": 3}),
        (KVLayout.HEADS_FIRST, {}),
    ],
)
def test_attention_runs_a_kernel_of_jax(layout, options, kind):
    assert kernels(lower(*attention_call(layout, **options), kind=kind))


@pytest.mark.parametrize(
    ("layout", "options"),
    [
        (KVLayout.NHD, {}),
        (KVLayout.FUSED, {"attention_chunk_size": 8}),
        (KVLayout.FUSED, {"num_sink_tokens": 1, "sliding_window": 8}),
        (KVLayout.FUSED, {"sinks": jnp.zeros(32)}),
        (KVLayout.FUSED, {"sliding_window": jnp.int32(8)}),
        (KVLayout.HEADS_FIRST, {"tokens": 40, "requests": 3}),
        (KVLayout.HEADS_FIRST, {"sliding_window": 8}),
    ],
)
def test_attention_is_plain_xla_where_jax_has_no_kernel(layout, options):
    assert not kernels(lower(*attention_call(layout, **options)))


@pytest.mark.parametrize("layout", [KVLayout.HEADS_FIRST, KVLayout.NHD])
def test_attention_on_gpus_runs_a_triton_kernel_of_jax_for_decodes(layout):
    attend, *arrays = attention_call(layout)
    program = jax.jit(attend).trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()
    assert ("triton" in program) == (layout is KVLayout.HEADS_FIRST)
