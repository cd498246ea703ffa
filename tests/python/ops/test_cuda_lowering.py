"""What a program for CUDA calls, as far as it can be told without a GPU."""

import functools
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from pagedkv import KVLayout, _ffi_cpu
from pagedkv.ops import (
    QuantizedPages,
    _register,
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

_ffi_cuda = pytest.importorskip("pagedkv._ffi_cuda", reason="built without nvcc")

PAGES, PAGE_SIZE, HEADS, DIM = 4, 8, 2, 16
IDS = jnp.int32([1, -1, 3])
SLOTS = jnp.int32([5, 9, -1])


def pool(layout=KVLayout.NHD, dtype="bfloat16"):
    shapes = layout.pool_shapes(
        num_pages=PAGES,
        page_size=PAGE_SIZE,
        num_kv_heads=1 if layout.is_latent else HEADS,
        head_dim=DIM,
        dtype_bits=16,
    )
    return [jnp.zeros(shape, dtype) for shape in shapes]


def rows(layout=KVLayout.NHD, dtype="bfloat16"):
    shape = (len(SLOTS), DIM) if layout.is_latent else (len(SLOTS), HEADS, DIM)
    return [jnp.zeros(shape, dtype)] * (1 if layout.is_latent else 2)


def write(layout):
    def op(pools, new):
        return write_kv(*[*pools, None][:2], *[*new, None][:2], SLOTS, layout=layout)

    return op, (pool(layout), rows(layout))


def write_quantized(granularity):
    pools = [QuantizedPages.zeros(pool()[0].shape, jnp.int8, granularity=granularity)] * 2
    return lambda pools, new: write_kv(*pools, *new, SLOTS), (pools, rows())


def gather_quantized():
    pages = QuantizedPages.zeros(pool()[0].shape, jnp.int8)
    return lambda pages: gather_pages(pages, IDS, dtype=jnp.float32), (pages,)


def move(to):
    pools = [*pool(), *pool(dtype="float32")]
    return (
        lambda pools, rows: move_pages(pools, IDS, rows, to=to),
        (pools, jnp.zeros([3, page_row_bytes(pools)], jnp.uint8)),
    )


PAGE_ROWS = jnp.zeros([3, PAGE_SIZE, HEADS, DIM], "bfloat16")
OPS = {
    **{f"write_kv {layout.name}": functools.partial(write, layout) for layout in KVLayout},
    "write_kv int8 token": functools.partial(write_quantized, "token"),
    "write_kv int8 page": functools.partial(write_quantized, "page"),
    "gather_pages": lambda: (lambda pages: gather_pages(pages, IDS), pool()[:1]),
    "gather_pages int8": gather_quantized,
    "gather_into": lambda: (
        lambda pages, into: gather_into(pages, IDS, into),
        (pool()[0], PAGE_ROWS),
    ),
    "gather_through": lambda: (lambda pages: gather_through(pages, IDS), pool()[:1]),
    "scatter_pages": lambda: (
        lambda pages, new: scatter_pages(pages, IDS, new),
        (pool()[0], PAGE_ROWS),
    ),
    "copy_pages": lambda: (lambda pools: copy_pages(pools, IDS, IDS), (pool(),)),
    "move_pages to rows": functools.partial(move, "rows"),
    "move_pages to pages": functools.partial(move, "pages"),
}


def custom_calls(function, arrays, platform):
    """Target, attributes, aliases and types of each call of a handler of ours."""
    lowered = jax.jit(function).trace(*arrays).lower(lowering_platforms=(platform,))
    return re.findall(
        r"stablehlo.custom_call @(pagedkv\.[\w.]+)\([^)]*\) \{(.*?)\} : (.*)", lowered.as_text()
    )


@pytest.mark.parametrize("name", OPS)
def test_calls_on_cuda_what_it_calls_on_the_cpu(name):
    function, arrays = OPS[name]()
    calls = custom_calls(function, arrays, "cuda")
    assert len(calls) == 1
    assert calls == custom_calls(function, arrays, "cpu")
    target, attributes, _ = calls[0]
    assert target in _ffi_cuda.registrations()
    assert ("output_operand_alias<" in attributes) != name.startswith("gather_pages")


def test_takes_the_reference_where_there_is_no_handler():
    query = jnp.zeros([1, HEADS, DIM], "bfloat16")
    starts, lens = jnp.int32([0, 1]), jnp.int32([1])
    keys, values = pool()
    function = functools.partial(paged_attention, query)
    arrays = (keys, values, jnp.int32([[1]]), starts, lens)
    assert custom_calls(function, arrays, "cpu")
    assert not custom_calls(function, arrays, "cuda")


@pytest.mark.parametrize("platform", ["tpu", "rocm"])
def test_other_platforms_call_none(platform):
    function, arrays = OPS["write_kv NHD"]()
    assert not custom_calls(function, arrays, platform)


def test_has_all_targets_of_the_cpu_but_attention():
    (missing,) = set(_ffi_cpu.registrations()) - set(_ffi_cuda.registrations())
    assert missing.startswith("pagedkv.paged_attention.")
    assert _ffi_cuda.api_version() == _ffi_cpu.api_version()
    assert _register.platforms_of("pagedkv.write_kv.v2") == ("cpu", "cuda")
    assert _register.platforms_of(missing) == ("cpu",)


def test_without_the_extension_only_the_cpu_has_handlers():
    # Another process: here it is loaded already.
    program = (
        "import importlib.util, jax, jax.numpy as jnp\n"
        "find = importlib.util.find_spec\n"
        "def without(name, *args):\n"
        "    return None if name == 'pagedkv._ffi_cuda' else find(name, *args)\n"
        "importlib.util.find_spec = without\n"
        "from pagedkv.ops import _register, gather_pages\n"
        "assert _register.platforms_of('pagedkv.write_kv.v2') == ('cpu',)\n"
        "gather_pages(jnp.zeros([1, 1, 1, 1]), jnp.int32([0]))\n"
        "lowered = jax.jit(gather_pages).trace(jnp.zeros([1, 1, 1, 1]), jnp.int32([0]))\n"
        "text = lowered.lower(lowering_platforms=('cuda',)).as_text()\n"
        "assert 'pagedkv' not in text.replace('pagedkv_', ''), text\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_loads_without_cuda():
    # No driver, no toolkit: the runtime is inside.
    linked = subprocess.run(
        ["ldd", _ffi_cuda.__file__], check=True, capture_output=True, text=True
    ).stdout
    assert "libcuda" not in linked
    assert "not found" not in linked
