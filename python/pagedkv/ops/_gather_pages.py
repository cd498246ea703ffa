"""Reads pages out of a pool."""

import functools
from typing import NamedTuple

import jax
from jax.typing import ArrayLike

from pagedkv.ops import _checks, _dispatch, _reference
from pagedkv.ops._axes import OpAxes
from pagedkv.ops._checks import Mode


class PageGather(NamedTuple):
    """Pages as contiguous rows, and how many ids named none."""

    rows: jax.Array
    num_dropped: jax.Array


def gather_pages(
    pages: ArrayLike,
    page_ids: ArrayLike,
    *,
    layer: ArrayLike | None = None,
    mode: Mode = "drop",
) -> PageGather:
    """Copies page ``page_ids[i]`` of the pool to ``rows[i]``.

    Under `jax.vmap` a pool that is not mapped is read where it is, without a copy for each batch
    element. In a program that also writes the pool, read the new one: reading the old one makes
    XLA copy it. For arrays sharded over a mesh call it inside `jax.shard_map`.

    Args:
      pages: Any dtype, shape ``[pages, page_size, kv_heads, head_dim]``, or
        ``[layers, pages, page_size, kv_heads, head_dim]`` with ``layer``.
      page_ids: int32, any shape, each in ``[0, pages)``, or -1 for padding: a page of zeros that
        is not counted.
      layer: int, or int32 scalar array, in ``[0, layers)``. For pools with a layer axis.
      mode: What becomes of a page id or a layer array that is out of range. "drop" gives a page
        of zeros and counts it. "raise" fails with `jax.errors.JaxRuntimeError` and is for
        debugging. Only the CPU can raise, other platforms drop.

    Returns:
      ``rows``: the dtype of ``pages``, shape ``[*page_ids.shape, page_size, kv_heads, head_dim]``,
      and ``num_dropped``: int32, shape ``[]``, how many ids were out of range, padding aside. All
      of them, if the layer is.

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
    layered = layer is not None
    _checks.check_mode(operation, mode)
    pool = _checks.as_array(operation, "pages", pages)
    _checks.check_pool(operation, "pages", pool, layered=layered)
    ids = _checks.as_array(operation, "page_ids", page_ids)
    _checks.check_int32(operation, "page_ids", ids)
    layer_id = _checks.as_layer(operation, layer, pool)
    return PageGather(*_gather(pages, page_ids, layer_id, layered=layered, mode=mode))


@functools.partial(jax.jit, static_argnames=("layered", "mode"), inline=True)
def _gather(*operands: jax.Array, layered: bool, mode: str) -> tuple[jax.Array, ...]:
    return _dispatch.call(
        "pagedkv.gather_pages.v1",
        _reference.gather_pages,
        *operands,
        axes=_axes(layered, operands[1].ndim),
        # Not broadcast_all: it would copy a pool that is not mapped once for each batch element.
        vmap_method="expand_dims",
        aliases={},
        attributes={"layered": layered},
        mode=mode,
    )


def _axes(layered: bool, ids_rank: int) -> OpAxes:
    page = ("page_size", "kv_heads", "head_dim")
    ids = tuple(f"ids{i}" for i in range(ids_rank))
    return OpAxes(
        "gather_pages",
        operands={
            "pages": (*["layers"] * layered, "pages", *page),
            "page_ids": ids,
            "layer": (),
        },
        results=((*ids, *page), ()),
        ids={"page_ids": ("pages",)},
        summed=frozenset([0]),
    )
