"""Moves pages between pools and contiguous rows, for tiers of memory."""

import functools
import math
from typing import Any, Literal, NamedTuple, cast, get_args

import jax
import numpy as np
from jax.typing import ArrayLike

from pagedkv.layouts import KVLayout
from pagedkv.ops import _checks, _pallas, _reference
from pagedkv.ops._axes import OpAxes, numbered
from pagedkv.ops._checks import Mode
from pagedkv.ops._dispatch import COUNT, Op

Target = Literal["rows", "pages"]


class PageMove(NamedTuple):
    """Pools and rows after a move, and how many ids named no page."""

    pools: Any
    rows: jax.Array
    num_dropped: jax.Array


def move_pages(
    pools: Any,
    page_ids: ArrayLike,
    rows: ArrayLike,
    *,
    to: Target,
    layout: KVLayout | str = KVLayout.NHD,
    stacked: bool = False,
    mode: Mode = "drop",
) -> PageMove:
    """Moves page ``page_ids[i]`` of every pool, all layers, to or from the bytes ``rows[i]``.

    One row is what a page is as a whole, in one piece: to write to a file, to send, or to keep in
    host memory. It has the pools in the order of `jax.tree.leaves`; of each, the page's part in
    the order of its axes. Under `jax.jit` with pools and rows donated both stay where they are, in
    either direction. On a mesh the pools may be sharded over their pages.

    Args:
      pools: Any pytree of arrays with as many pages each: a `KVPool`, a list of pools, scales. Any
        dtypes.
      page_ids: int32, shape ``[n]``, each in ``[0, pages)``, or -1 for padding: a row of zeros, or
        one that goes nowhere.
      rows: uint8, shape ``[n, page_row_bytes(pools)]``.
      to: "rows" to read the pools, "pages" to write them.
      layout: Where the pages are counted: a `pagedkv.KVLayout`, or its name.
      stacked: Whether the pools have a layer axis before the axes of the layout.
      mode: What becomes of an id out of range. "drop" treats it as padding, and counts it. "raise"
        fails with `jax.errors.JaxRuntimeError` before the first write; what was donated is lost
        then. Only the CPU can raise, other platforms drop.

    Returns:
      Pools and rows, and ``num_dropped``: int32, shape ``[]``, how many ids were out of range,
      padding aside.

    Raises:
      TypeError: If an operand is no array, the ids are not int32 or the rows not uint8.
      ValueError: If shapes do not fit together, there is no pool, or ``to``, ``mode`` or ``layout``
        is unknown; also when differentiated.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from pagedkv.ops import move_pages, page_row_bytes
      >>> pools = [jnp.arange(3, dtype=jnp.uint8).reshape(3, 1, 1, 1) for _ in range(2)]
      >>> rows = jnp.zeros([1, page_row_bytes(pools)], jnp.uint8)
      >>> pools, rows, _ = move_pages(pools, jnp.int32([2]), rows, to="rows")
      >>> rows.tolist()
      [[2, 2]]
      >>> pools, rows, _ = move_pages(pools, jnp.int32([0]), rows, to="pages")
      >>> pools[1].ravel().tolist()
      [2, 1, 2]
    """
    operation = "move_pages"
    if not isinstance(to, str) or to not in get_args(Target):
        raise ValueError(f"[{operation}] to must be 'rows' or 'pages', got {to!r}")
    page_axis = _checks.find_page_axis(operation, layout, stacked)
    _checks.check_mode(operation, mode)
    leaves, tree = _checks.flatten_pools(operation, pools)
    _checks.check_pools(operation, leaves, page_axis)
    ids = _checks.as_array(operation, "page_ids", page_ids)
    _checks.check_int32(operation, "page_ids", ids)
    if len(ids.shape) != 1:
        raise ValueError(f"[{operation}] page_ids must have shape [n], got {list(ids.shape)}")
    bytes_of_rows = _checks.as_array(operation, "rows", rows)
    if bytes_of_rows.dtype != np.uint8:
        raise TypeError(f"[{operation}] rows must be uint8, got {bytes_of_rows.dtype}")
    wanted = (ids.shape[0], _row_bytes(leaves, page_axis))
    if bytes_of_rows.shape != wanted:
        raise ValueError(
            f"[{operation}] rows must have shape {list(wanted)}, got {list(bytes_of_rows.shape)}"
        )
    op = _op(tuple(len(leaf.shape) for leaf in leaves), page_axis, to, mode)
    num_dropped, *moved = op(page_ids, rows, *leaves)
    new_rows = moved.pop(0) if to == "rows" else cast(jax.Array, rows)
    return PageMove(jax.tree.unflatten(tree, moved), new_rows, num_dropped)


def page_row_bytes(
    pools: Any, *, layout: KVLayout | str = KVLayout.NHD, stacked: bool = False
) -> int:
    """Bytes of a row of `move_pages`: of one page, in all layers of all pools.

    Args:
      pools: As of `move_pages`; arrays or `jax.ShapeDtypeStruct`.
      layout: A `pagedkv.KVLayout`, or its name.
      stacked: Whether the pools have a layer axis before the axes of the layout.

    Raises:
      TypeError: If a pool is no array.
      ValueError: If a pool has too few axes, or pools differ in pages.
    """
    operation = "page_row_bytes"
    page_axis = _checks.find_page_axis(operation, layout, stacked)
    leaves, _ = _checks.flatten_pools(operation, pools)
    _checks.check_pools(operation, leaves, page_axis, abstract=True)
    return _row_bytes(leaves, page_axis)


def _row_bytes(leaves: list[Any], page_axis: int) -> int:
    return sum(
        math.prod(pool.shape[:page_axis] + pool.shape[page_axis + 1 :])
        * _checks.bits(pool.dtype)
        // 8
        for pool in leaves
    )


@functools.cache
def _op(ranks: tuple[int, ...], page_axis: int, to: Target, mode: str) -> Op:
    target, function, first_result = (
        ("pagedkv.pages_to_rows.v1", _reference.pages_to_rows, 1)
        if to == "rows"
        else ("pagedkv.rows_to_pages.v1", _reference.rows_to_pages, 2)
    )
    reference = functools.partial(function, page_axis=page_axis)
    written = range(first_result, 2 + len(ranks))  # operands: the ids, the rows, the pools
    return Op(
        target,
        reference,
        lambda *operands: (COUNT, *operands[first_result:]),
        axes=_axes(ranks, page_axis, to),
        vmap_method="broadcast_all",
        aliases={operand: 1 + i for i, operand in enumerate(written)},
        attributes={"page_axis": page_axis, "mode": mode},
        kernels=_pallas.on_tpu(reference),
    )


def _axes(ranks: tuple[int, ...], page_axis: int, to: Target) -> OpAxes:
    axes = {}
    for i, rank in enumerate(ranks):
        names = list(numbered("axis", rank))
        names[page_axis] = "pages"
        axes[f"pools[{i}]"] = tuple(names)
    rows = ("ids", "bytes")
    return OpAxes(
        "move_pages",
        operands={"page_ids": ("ids",), "rows": rows, **axes},
        results=((), *[rows] * (to == "rows"), *axes.values()),
        ids={"page_ids": ("pages",)},
        summed=frozenset([1] * (to == "rows")),
    )
