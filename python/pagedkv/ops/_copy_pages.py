"""Copies pages inside pools, in place."""

import functools
from typing import Any, NamedTuple

import jax
from jax.typing import ArrayLike

from pagedkv.layouts import KVLayout
from pagedkv.ops import _checks, _pallas, _reference
from pagedkv.ops._axes import OpAxes, numbered
from pagedkv.ops._checks import Mode
from pagedkv.ops._dispatch import COUNT, Op


class PageCopy(NamedTuple):
    """The pools after a copy, and how many pairs named a page that is not there."""

    pools: Any
    num_dropped: jax.Array


def copy_pages(
    pools: Any,
    source_ids: ArrayLike,
    target_ids: ArrayLike,
    *,
    layout: KVLayout | str = KVLayout.NHD,
    stacked: bool = False,
    mode: Mode = "drop",
) -> PageCopy:
    """Copies page ``source_ids[i]`` to page ``target_ids[i]`` in every pool, in all layers.

    For the pairs of `CacheManager.fork`, and for moving pages together. In place under `jax.jit`
    with the pools donated. All sources are read before a target is written, so that pages can be
    swapped. Of equal targets the last one wins, on the CPU, by the kernels for TPUs, and on CUDA, which
    takes at most 49,152 pairs; elsewhere it is not defined which (docs/platforms.md).

    On a mesh the pools may be sharded over any axes. Where that is their pages, both of a pair must
    be on one device; other pairs count as out of range.

    Args:
      pools: Any pytree of arrays with as many pages each: a `KVPool`, a list of pools, scales. Any
        dtypes.
      source_ids: int32, shape ``[pairs]``, each in ``[0, pages)``. A pair with -1 in it is padding.
      target_ids: int32, shape ``[pairs]``.
      layout: Where the pages are counted: a `pagedkv.KVLayout`, or its name.
      stacked: Whether the pools have a layer axis before the axes of the layout.
      mode: What becomes of a pair with an id out of range. "drop" copies nothing and counts it.
        "raise" fails with `jax.errors.JaxRuntimeError` before the first write; the donated pools
        are lost then. Only the CPU can raise, other platforms drop.

    Returns:
      The new pools, and ``num_dropped``: int32, shape ``[]``.

    Raises:
      TypeError: If an operand is no array, or the ids are not int32.
      ValueError: If shapes do not fit together, there is no pool, or ``mode`` or ``layout`` is
        unknown; also when differentiated.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from pagedkv.ops import copy_pages
      >>> pools = [jnp.arange(3.0).reshape(3, 1, 1, 1) for _ in range(2)]
      >>> pools, num_dropped = copy_pages(pools, jnp.int32([1, 2]), jnp.int32([2, 1]))
      >>> pools[0].ravel().tolist(), int(num_dropped)
      ([0.0, 2.0, 1.0], 0)
    """
    operation = "copy_pages"
    page_axis = _checks.find_page_axis(operation, layout, stacked)
    _checks.check_mode(operation, mode)
    leaves, tree = _checks.flatten_pools(operation, pools)
    _checks.check_pools(operation, leaves, page_axis)
    ids = [
        _checks.as_array(operation, name, value)
        for name, value in (("source_ids", source_ids), ("target_ids", target_ids))
    ]
    _checks.check_int32(operation, "source_ids", ids[0])
    _checks.check_int32(operation, "target_ids", ids[1])
    if len(ids[0].shape) != 1 or ids[0].shape != ids[1].shape:
        raise ValueError(
            f"[{operation}] source_ids and target_ids must have one shape [pairs], "
            f"got {list(ids[0].shape)} and {list(ids[1].shape)}"
        )
    op = _op(tuple(len(leaf.shape) for leaf in leaves), page_axis, mode)
    num_dropped, *copied = op(source_ids, target_ids, *leaves)
    return PageCopy(jax.tree.unflatten(tree, copied), num_dropped)


@functools.cache
def _op(ranks: tuple[int, ...], page_axis: int, mode: str) -> Op:
    reference = functools.partial(_reference.copy_pages, page_axis=page_axis)
    return Op(
        "pagedkv.copy_pages.v1",
        reference,
        lambda _, __, *pools: (COUNT, *pools),
        axes=_axes(ranks, page_axis),
        vmap_method="broadcast_all",
        aliases={2 + i: 1 + i for i in range(len(ranks))},
        attributes={"page_axis": page_axis, "mode": mode},
        kernels=_pallas.on_tpu(reference),
    )


def _axes(ranks: tuple[int, ...], page_axis: int) -> OpAxes:
    axes = {}
    for i, rank in enumerate(ranks):
        names = list(numbered(f"free{i}_", rank))
        names[page_axis] = "pages"
        axes[f"pools[{i}]"] = tuple(names)
    return OpAxes(
        "copy_pages",
        operands={"source_ids": ("pairs",), "target_ids": ("pairs",), **axes},
        results=((), *axes.values()),
        ids={"source_ids": ("pages",), "target_ids": ("pages",)},
        paired=True,
    )
