"""Reads pages out of a pool: into new memory, into the caller's, or with the pool handed on."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from pagedkv.layouts import KVLayout
from pagedkv.ops import _checks, _pallas, _quantized, _reference
from pagedkv.ops._axes import OpAxes, numbered, pool_axes, scale_axes, without_pages
from pagedkv.ops._checks import Mode
from pagedkv.ops._dispatch import COUNT, Op
from pagedkv.ops._quantized import QuantizedPages


class PageGather(NamedTuple):
    """Pages as contiguous rows, and how many ids named none."""

    rows: jax.Array
    num_dropped: jax.Array


class PageGatherThrough(NamedTuple):
    """The pool as it was, pages of it as contiguous rows, and how many ids named none."""

    pages: jax.Array
    rows: jax.Array
    num_dropped: jax.Array


def gather_pages(
    pages: ArrayLike | QuantizedPages,
    page_ids: ArrayLike,
    *,
    layer: ArrayLike | None = None,
    layout: KVLayout | str = KVLayout.NHD,
    dtype: DTypeLike | None = None,
    mode: Mode = "drop",
) -> PageGather:
    """Copies page ``page_ids[i]`` of the pool to ``rows[i]``.

    Under `jax.vmap` a pool that is not mapped is read where it is, without a copy for each batch
    element. In a program that also writes the pool, read the new one: reading the old one makes
    XLA copy it.

    On a mesh the pool may be sharded over pages and kv heads. Ids are those of the whole pool, and
    the rows of all devices are added up; inside `jax.shard_map` each device reads its own part
    alone, by ids of that part (`local_ids` converts).

    Args:
      pages: Any dtype, shape ``[pages, page_size, kv_heads, head_dim]`` or what ``layout`` says,
        and a layer axis before it with ``layer``. Or `QuantizedPages` of such, to read numbers.
      page_ids: int32, any shape, each in ``[0, pages)``, or -1 for padding: a page of zeros that
        is not counted.
      layer: int, or int32 scalar array, in ``[0, layers)``. For pools with a layer axis.
      layout: Where the pages are counted: a `pagedkv.KVLayout`, or its name.
      dtype: Of the numbers read from `QuantizedPages`: float32, float16, or bfloat16, which it is
        without one. Other pools have a dtype of their own.
      mode: What becomes of a page id or a layer array that is out of range. "drop" gives a page
        of zeros and counts it. "raise" fails with `jax.errors.JaxRuntimeError` and is for
        debugging. Only the CPU can raise, other platforms drop.

    Returns:
      ``rows``: the dtype of ``pages``, or ``dtype``; shape ``[*page_ids.shape, *page]``, where a
      page has the axes of a layer's pool but that of the pages. And ``num_dropped``: int32, shape
      ``[]``, how many ids were out of range, padding aside. All of them, if the layer is.

    Raises:
      TypeError: If an operand is no array or the ids are not int32.
      ValueError: If ``pages`` has another rank, a row is not a whole number of bytes, or ``mode``
        is unknown; also when differentiated.
      IndexError: If ``layer`` is a Python int out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from pagedkv.ops import gather_pages
      >>> pool = jnp.arange(4.0).reshape(4, 1, 1, 1)
      >>> rows, num_dropped = gather_pages(pool, jnp.int32([3, -1, 9]))
      >>> rows.ravel().tolist(), int(num_dropped)
      ([3.0, 0.0, 0.0], 1)
    """
    operation = "gather_pages"
    if isinstance(pages, QuantizedPages):
        layout, layer_id = _checks.check_page_op(
            operation, pages.pages, page_ids, layer, layout, mode
        )
        _quantized.granularity_of(operation, "pages", pages, layout, layered=layer is not None)
        return PageGather(
            *_dequantizing_op(
                len(pages.scales.shape),
                len(np.shape(page_ids)),
                layout,
                layer is not None,
                _quantized.as_float_dtype(operation, dtype),
                mode,
            )(*pages, page_ids, layer_id)
        )
    if dtype is not None:
        raise ValueError(f"[{operation}] dtype is for QuantizedPages, got {dtype!r} for an array")
    layout, layer_id = _checks.check_page_op(operation, pages, page_ids, layer, layout, mode)
    return PageGather(
        *_op(operation, len(np.shape(page_ids)), layout, layer is not None, mode)(
            pages, page_ids, layer_id
        )
    )


def gather_into(
    pages: ArrayLike,
    page_ids: ArrayLike,
    rows: ArrayLike,
    *,
    layer: ArrayLike | None = None,
    layout: KVLayout | str = KVLayout.NHD,
    mode: Mode = "drop",
) -> PageGather:
    """`gather_pages` into the memory of ``rows``, under `jax.jit` with these donated.

    A large result costs more for its new memory than for the copy: its pages of virtual memory
    are touched for the first time, call after call.

    Args:
      pages: As of `gather_pages`; so are ``page_ids``, ``layer``, ``layout`` and ``mode``.
      page_ids: int32, any shape.
      rows: The dtype of ``pages``, shape ``[*page_ids.shape, *page]``. What is in it is lost.
      layer: int, or int32 scalar array.
      layout: A `pagedkv.KVLayout`, or its name.
      mode: "drop" or "raise".

    Returns:
      As `gather_pages`, with the memory of ``rows`` for the rows.

    Raises:
      TypeError: As `gather_pages`; also if ``rows`` has another dtype.
      ValueError: As `gather_pages`; also if ``rows`` has another shape.
      IndexError: As `gather_pages`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from pagedkv.ops import gather_into
      >>> pool = jnp.arange(4.0).reshape(4, 1, 1, 1)
      >>> read = jax.jit(gather_into, donate_argnums=2)
      >>> rows, num_dropped = read(pool, jnp.int32([3, -1]), jnp.ones([2, 1, 1, 1]))
      >>> rows.ravel().tolist(), int(num_dropped)
      ([3.0, 0.0], 0)
    """
    operation = "gather_into"
    layout, layer_id = _checks.check_page_op(operation, pages, page_ids, layer, layout, mode)
    layered = layer is not None
    pool = _checks.as_array(operation, "pages", pages)
    _checks.check_page_rows(
        operation,
        _checks.as_array(operation, "rows", rows),
        "pages",
        pool,
        _checks.as_array(operation, "page_ids", page_ids),
        axis=layout.page_axis + layered,
        layered=layered,
    )
    return PageGather(
        *_op(operation, len(np.shape(page_ids)), layout, layered, mode)(
            pages, rows, page_ids, layer_id
        )
    )


def gather_through(
    pages: ArrayLike,
    page_ids: ArrayLike,
    *,
    layer: ArrayLike | None = None,
    layout: KVLayout | str = KVLayout.NHD,
    mode: Mode = "drop",
) -> PageGatherThrough:
    """`gather_pages` that hands the pool on, for programs that read it and then write it.

    XLA copies a pool that is read as it was by a program that also writes it. It does not if the
    write takes the pool that comes out of here.

    Args:
      pages: As of `gather_pages`, and so are the others.
      page_ids: int32, any shape.
      layer: int, or int32 scalar array.
      layout: A `pagedkv.KVLayout`, or its name.
      mode: "drop" or "raise".

    Returns:
      The pool, in the memory it had if it is donated, and as `gather_pages`.

    Raises:
      TypeError: As `gather_pages`.
      ValueError: As `gather_pages`.
      IndexError: As `gather_pages`.

    Example:
      >>> import jax.numpy as jnp
      >>> from pagedkv.ops import gather_through
      >>> pool, rows, _ = gather_through(jnp.arange(4.0).reshape(4, 1, 1, 1), jnp.int32([3]))
      >>> pool.shape, rows.ravel().tolist()
      ((4, 1, 1, 1), [3.0])
    """
    operation = "gather_through"
    layout, layer_id = _checks.check_page_op(operation, pages, page_ids, layer, layout, mode)
    return PageGatherThrough(
        *_op(operation, len(np.shape(page_ids)), layout, layer is not None, mode)(
            pages, page_ids, layer_id
        )
    )


class _Form(NamedTuple):
    """What the ops that read pages differ in."""

    target: str
    reference: Callable[..., tuple[jax.Array, ...]]
    # Not broadcast_all where nothing is aliased: it would copy a pool that is not mapped once for
    # each batch element.
    vmap_method: str
    aliases: Mapping[int, int]


_FORMS = {
    "gather_pages": _Form("pagedkv.gather_pages.v2", _reference.gather_pages, "expand_dims", {}),
    "gather_into": _Form("pagedkv.gather_into.v1", _reference.gather_into, "broadcast_all", {1: 0}),
    "gather_through": _Form(
        "pagedkv.gather_through.v1", _reference.gather_through, "broadcast_all", {0: 0}
    ),
}


@functools.cache
def _op(name: str, ids_rank: int, layout: KVLayout, layered: bool, mode: str) -> Op:
    form = _FORMS[name]
    page_axis = layout.page_axis

    def results(pages: Any, *operands: Any) -> tuple[Any, ...]:
        ids = operands[-2]
        rows = _rows(ids.shape, pages.shape[layered:], page_axis, pages.dtype)
        return (pages, rows, COUNT) if name == "gather_through" else (rows, COUNT)

    reference = functools.partial(form.reference, layered=layered, page_axis=page_axis)
    return Op(
        form.target,
        reference,
        results,
        axes=_axes(name, ids_rank, layout, layered),
        vmap_method=form.vmap_method,
        aliases=form.aliases,
        attributes={"layered": layered, "page_axis": page_axis, "mode": mode},
        kernels=_pallas.on_tpu(reference),
    )


@functools.cache
def _dequantizing_op(
    scale_rank: int, ids_rank: int, layout: KVLayout, layered: bool, dtype: Any, mode: str
) -> Op:
    def results(pages: Any, _: Any, ids: Any, layer: Any) -> tuple[Any, ...]:
        return _rows(ids.shape, pages.shape[layered:], layout.page_axis, dtype), COUNT

    return Op(
        "pagedkv.gather_dequantized.v1",
        functools.partial(
            _reference.gather_dequantized, layout=layout, layered=layered, dtype=dtype
        ),
        results,
        axes=_axes("gather_dequantized", ids_rank, layout, layered, scale_rank),
        vmap_method="expand_dims",
        aliases={},
        attributes={"layout": layout.name, "layered": layered, "mode": mode},
    )


def _rows(
    ids: tuple[int, ...], layer: tuple[int, ...], page_axis: int, dtype: Any
) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((*ids, *layer[:page_axis], *layer[page_axis + 1 :]), dtype)


def _axes(name: str, ids_rank: int, layout: KVLayout, layered: bool, scale_rank: int = 0) -> OpAxes:
    pool = pool_axes(layout, layered=layered)
    ids = numbered("ids", ids_rank)
    rows = (*ids, *without_pages(pool))
    through = name == "gather_through"
    others = {}
    if name == "gather_into":
        others["rows"] = rows
    if name == "gather_dequantized":
        others["scales"] = scale_axes(layout, layered=layered, rank=scale_rank)
    return OpAxes(
        "gather_pages" if name == "gather_dequantized" else name,
        operands={
            "pages": pool,
            **others,
            "page_ids": ids,
            "layer": (),
        },
        results=(*[pool] * through, rows, ()),
        ids={"page_ids": ("pages",)},
        summed=frozenset([int(through)]),
    )
