"""Writes whole pages to a pool, in place."""

import functools
from typing import NamedTuple

import jax
from jax.typing import ArrayLike

from pagedkv.layouts import KVLayout
from pagedkv.ops import _checks, _pallas, _reference
from pagedkv.ops._axes import OpAxes, numbered, pool_axes, without_pages
from pagedkv.ops._checks import Mode
from pagedkv.ops._dispatch import COUNT, Op


class PageScatter(NamedTuple):
    """The pool after a write, and how many ids named no page."""

    pages: jax.Array
    num_dropped: jax.Array


def scatter_pages(
    pages: ArrayLike,
    page_ids: ArrayLike,
    rows: ArrayLike,
    *,
    layer: ArrayLike | None = None,
    layout: KVLayout | str = KVLayout.NHD,
    mode: Mode = "drop",
) -> PageScatter:
    """Writes ``rows[i]`` to page ``page_ids[i]`` of the pool: the reverse of `gather_pages`.

    In place under `jax.jit` with the pool donated. Of equal ids the last one wins, on the CPU, on CUDA
    and by the kernels for TPUs; elsewhere it is not defined which (docs/platforms.md). On a mesh the
    pool may be sharded over pages and kv heads.

    Args:
      pages: Any dtype, shape ``[pages, page_size, kv_heads, head_dim]`` or what ``layout`` says,
        and a layer axis before it with ``layer``.
      page_ids: int32, any shape, each in ``[0, pages)``, or -1 for padding, which is never written
        nor counted.
      rows: The dtype of ``pages``, shape ``[*page_ids.shape, *page]``, where a page has the axes of
        a layer's pool but that of the pages.
      layer: int, or int32 scalar array, in ``[0, layers)``. For pools with a layer axis.
      layout: Where the pages are counted: a `pagedkv.KVLayout`, or its name.
      mode: What becomes of an id or a layer array that is out of range. "drop" writes nothing there
        and counts it. "raise" fails with `jax.errors.JaxRuntimeError` before the first write; the
        donated pool is lost then. Only the CPU can raise, other platforms drop.

    Returns:
      The new pool, and ``num_dropped``: int32, shape ``[]``, how many ids were out of range,
      padding aside. All of them, if the layer is.

    Raises:
      TypeError: If an operand is no array, the ids are not int32, or rows and pool differ in dtype.
      ValueError: If shapes do not fit together, or ``mode`` or ``layout`` is unknown; also when
        differentiated.
      IndexError: If ``layer`` is a Python int out of range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from pagedkv.ops import scatter_pages
      >>> write = jax.jit(scatter_pages, donate_argnums=0)
      >>> pool, num_dropped = write(
      ...     jnp.zeros([4, 1, 1, 1]), jnp.int32([3, 9]), jnp.ones([2, 1, 1, 1])
      ... )
      >>> pool.ravel().tolist(), int(num_dropped)
      ([0.0, 0.0, 0.0, 1.0], 1)
    """
    operation = "scatter_pages"
    layered = layer is not None
    layout, layer_id = _checks.check_page_op(operation, pages, page_ids, layer, layout, mode)
    ids = _checks.as_array(operation, "page_ids", page_ids)
    _checks.check_page_rows(
        operation,
        _checks.as_array(operation, "rows", rows),
        "pages",
        _checks.as_array(operation, "pages", pages),
        ids,
        axis=layout.page_axis + layered,
        layered=layered,
    )
    op = _op(len(ids.shape), layout, layered, mode)
    return PageScatter(*op(pages, rows, page_ids, layer_id))


@functools.cache
def _op(ids_rank: int, layout: KVLayout, layered: bool, mode: str) -> Op:
    page_axis = layout.page_axis
    reference = functools.partial(_reference.scatter_pages, layered=layered, page_axis=page_axis)
    return Op(
        "pagedkv.scatter_pages.v1",
        reference,
        lambda pages, *_: (pages, COUNT),
        axes=_axes(ids_rank, layout, layered),
        vmap_method="broadcast_all",
        aliases={0: 0},
        attributes={"layered": layered, "page_axis": page_axis, "mode": mode},
        kernels=_pallas.on_tpu(reference),
    )


def _axes(ids_rank: int, layout: KVLayout, layered: bool) -> OpAxes:
    pool = pool_axes(layout, layered=layered)
    ids = numbered("ids", ids_rank)
    return OpAxes(
        "scatter_pages",
        operands={
            "pages": pool,
            "rows": (*ids, *without_pages(pool)),
            "page_ids": ids,
            "layer": (),
        },
        results=(pool, ()),
        ids={"page_ids": ("pages",)},
    )
