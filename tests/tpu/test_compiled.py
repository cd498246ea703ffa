"""The ops, compiled for TPUs: that XLA and Mosaic take the kernels, and that no pool is copied."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding, use_abstract_mesh
from pagedkv import KVLayout
from pagedkv.ops import (
    copy_pages,
    gather_into,
    gather_pages,
    gather_through,
    scatter_pages,
    write_kv,
)
from pagedkv.ops._pallas import attention
from pagedkv.ops._pallas._tiles import is_row_major
from tpu_mesh import tpu_mesh

LAYERS, PAGES, PAGE_SIZE, TOKENS = 2, 1024, 16, 100
KERNEL = 'custom_call_target="tpu_custom_call"'
LAYOUTS = [layout for layout in KVLayout if layout is not KVLayout.LATENT_TRANSPOSED]
ALL = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
DTYPES = ("float32", "bfloat16", "int8", "float8_e4m3fn", "float8_e5m2", "int4")


def array(*shape, dtype="int32"):
    return jax.ShapeDtypeStruct(shape, dtype)


def compiled(device, function, *arguments, donate=()):
    sharding = SingleDeviceSharding(device)
    placed = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding) for a in arguments]
    with use_abstract_mesh(tpu_mesh(device.device_kind)):
        return jax.jit(function, donate_argnums=donate).lower(*placed).compile()


def assert_in_place(program, pools):
    """One kernel, whose results have the memory of the pools, and no copy of any."""
    text = program.as_text()
    assert text.count(KERNEL) == 1
    memory = program.memory_analysis()
    sizes = [math.prod(pool.shape) * bits(pool.dtype) // 8 for pool in pools]
    assert memory.alias_size_in_bytes >= sum(sizes)
    assert memory.temp_size_in_bytes < min(sizes)
    for pool in pools:
        shape = ",".join(map(str, pool.shape))
        assert not re.search(rf"= \w+\[{shape}\]\S* (copy|copy-start|fusion|transpose)\(", text)


def bits(dtype):
    return 4 if dtype == "int4" else 8 * np.dtype(dtype).itemsize


def pools_of(layout, dtype="bfloat16"):
    heads = 1 if layout.is_latent else 8
    dim = 64 if layout is KVLayout.SIDE_BY_SIDE else 128
    shapes = layout.pool_shapes(
        num_pages=PAGES,
        page_size=PAGE_SIZE,
        num_kv_heads=heads,
        head_dim=dim,
        dtype_bits=bits(jnp.dtype(dtype)),
    )
    row = (dim,) if layout.is_latent else (heads, dim)
    return [array(LAYERS, *shape, dtype=dtype) for shape in shapes], array(
        TOKENS, *row, dtype=dtype
    )


@ALL
@pytest.mark.parametrize("dtype", DTYPES)
def test_write_kv_is_in_place(device, layout, dtype):
    pools, row = pools_of(layout, dtype)

    def write(slots, row, layer, *pools):
        value = None if layout.is_latent else row
        return write_kv(*[*pools, None][:2], row, value, slots, layer=layer, layout=layout)

    donate = tuple(range(3, 3 + len(pools)))
    program = compiled(device, write, array(TOKENS), row, array(), *pools, donate=donate)
    assert_in_place(program, pools)


@ALL
def test_page_ops_are_in_place(device, layout):
    (pool, *_), _ = pools_of(layout)
    ids, axis = array(70), 1 + layout.page_axis
    page = pool.shape[1:axis] + pool.shape[axis + 1 :]
    rows = array(70, *page, dtype=pool.dtype)
    on = {"layer": 1, "layout": layout}
    program = compiled(device, lambda p, i: gather_pages(p, i, **on), pool, ids)
    assert program.as_text().count(KERNEL) == 1
    program = compiled(
        device, lambda p, i, r: gather_into(p, i, r, **on), pool, ids, rows, donate=(2,)
    )
    assert_in_place(program, [rows])
    program = compiled(device, lambda p, i: gather_through(p, i, **on), pool, ids, donate=(0,))
    assert_in_place(program, [pool])
    program = compiled(
        device, lambda p, i, r: scatter_pages(p, i, r, **on), pool, ids, rows, donate=(0,)
    )
    assert_in_place(program, [pool])

    def copy(pool, sources, targets):
        return copy_pages(pool, sources, targets, layout=layout, stacked=True)

    program = compiled(device, copy, pool, array(9), array(9), donate=(0,))
    assert_in_place(program, [pool])


@pytest.mark.parametrize(
    "page",
    [
        *((16, heads, 128) for heads in (1, 2, 3, 4, 5, 6, 8, 12, 16, 20, 24, 40)),
        *((16, 8, dim) for dim in (32, 64, 80, 96, 112, 256)),
        *((16, 8, pack, 128) for pack in (1, 2, 4)),
        *((16, dim) for dim in (512, 576, 640)),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_pools_that_have_kernels_are_row_major(device, page, dtype):
    """As XLA lays out arguments of a program by default; other pools would be copied twice."""
    pool = array(PAGES, *page, dtype=dtype)
    text = compiled(device, lambda pool: pool * 2, pool).as_text()
    order = re.search(r"entry_computation_layout=\{\(\w+\[[\d,]+\]\{([\d,]+)", text)[1]
    is_default = order == ",".join(map(str, reversed(range(len(pool.shape)))))
    assert is_row_major(pool) <= is_default
    if page[-1] % 128 == 0:
        assert is_row_major(pool) == is_default


@pytest.mark.parametrize(
    ("layout", "layered", "num_tokens"),
    [
        (KVLayout.FUSED, True, 50),
        (KVLayout.FUSED_PACKED, True, 50),
        (KVLayout.HEADS_FIRST, False, 8),
    ],
    ids=lambda value: getattr(value, "name", value),
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_copies_no_pool(device, layout, layered, num_tokens, dtype):
    pools, _ = pools_of(layout, dtype)
    if not layered:
        pools = [array(*pool.shape[1:], dtype=dtype) for pool in pools]
    query, table = array(num_tokens, 32, 128, dtype=dtype), array(8, 64)
    static = {"layered": layered, "layout": layout}
    assert attention.supports("tpu", query, *[*pools, None][:2], table, **static)

    def attend(query, table, starts, lens, layer, *pools):
        batch = (table, starts, lens, layer)
        return attention.paged_attention(
            "tpu", query, *[*pools, None][:2], *batch, scale=0.1, **static
        )

    program = compiled(device, attend, query, table, array(9), array(8), array(), *pools)
    assert program.as_text().count(KERNEL) == 1
    assert program.memory_analysis().temp_size_in_bytes < 2**20
