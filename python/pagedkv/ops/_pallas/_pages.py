"""The ops on whole pages for TPUs. Each takes and returns what its reference does."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from pagedkv.ops import _reference
from pagedkv.ops._pallas import _page_copies
from pagedkv.ops._pallas._copies import MAX_IDS
from pagedkv.ops._pallas._tiles import is_row_major
from pagedkv.ops._reference._ids import in_range, num_dropped, num_layers


def serves(pool: jax.Array, ids: jax.Array, axis: int) -> bool:
    """Whether a kernel copies pages, counted by ``axis``, of a pool like this."""
    return 0 < ids.size <= MAX_IDS and axis <= len(pool.shape) - 3 and is_row_major(pool)


def gather_pages(
    pages: jax.Array,
    page_ids: jax.Array,
    layer: jax.Array,
    *,
    layered: bool,
    page_axis: int,
    interpret: Any = False,
) -> tuple[jax.Array, jax.Array]:
    reference = functools.partial(_reference.gather_pages, layered=layered, page_axis=page_axis)
    axis = page_axis + layered
    if not serves(pages, page_ids, axis):
        return reference(pages, page_ids, layer)
    ids, layers, dropped = _checked(pages, page_ids, layer, axis, layered)
    (rows,) = _page_copies.gather(
        pages,
        ids,
        layers,
        jax.eval_shape(reference, pages, ids, layer)[0],
        axis=axis,
        layered=layered,
        interpret=interpret,
    )
    return rows.reshape(*page_ids.shape, *rows.shape[1:]), dropped


def gather_into(
    pages: jax.Array,
    rows: jax.Array,
    page_ids: jax.Array,
    layer: jax.Array,
    *,
    layered: bool,
    page_axis: int,
    interpret: Any = False,
) -> tuple[jax.Array, jax.Array]:
    axis = page_axis + layered
    if not serves(pages, page_ids, axis):
        return _reference.gather_into(
            pages, rows, page_ids, layer, layered=layered, page_axis=page_axis
        )
    ids, layers, dropped = _checked(pages, page_ids, layer, axis, layered)
    page = rows.shape[page_ids.ndim :]
    (gathered,) = _page_copies.gather(
        pages,
        ids,
        layers,
        rows.reshape(ids.size, *page),
        axis=axis,
        layered=layered,
        into=True,
        interpret=interpret,
    )
    return gathered.reshape(rows.shape), dropped


def gather_through(
    pages: jax.Array,
    page_ids: jax.Array,
    layer: jax.Array,
    *,
    layered: bool,
    page_axis: int,
    interpret: Any = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    reference = functools.partial(_reference.gather_through, layered=layered, page_axis=page_axis)
    axis = page_axis + layered
    if not serves(pages, page_ids, axis):
        return reference(pages, page_ids, layer)
    ids, layers, dropped = _checked(pages, page_ids, layer, axis, layered)
    pages, rows = _page_copies.gather(
        pages,
        ids,
        layers,
        jax.eval_shape(reference, pages, ids, layer)[1],
        axis=axis,
        layered=layered,
        through=True,
        interpret=interpret,
    )
    return pages, rows.reshape(*page_ids.shape, *rows.shape[1:]), dropped


def scatter_pages(
    pages: jax.Array,
    rows: jax.Array,
    page_ids: jax.Array,
    layer: jax.Array,
    *,
    layered: bool,
    page_axis: int,
    interpret: Any = False,
) -> tuple[jax.Array, jax.Array]:
    """As the reference. Of equal ids the last one wins."""
    axis = page_axis + layered
    if not serves(pages, page_ids, axis):
        return _reference.scatter_pages(
            pages, rows, page_ids, layer, layered=layered, page_axis=page_axis
        )
    ids, layers, dropped = _checked(pages, page_ids, layer, axis, layered)
    rows = rows.reshape(ids.size, *rows.shape[page_ids.ndim :])
    written = _page_copies.scatter(
        pages, rows, ids, layers, axis=axis, layered=layered, interpret=interpret
    )
    return written, dropped


def copy_pages(
    source_ids: jax.Array,
    target_ids: jax.Array,
    *pools: jax.Array,
    page_axis: int,
    interpret: Any = False,
) -> tuple[jax.Array, ...]:
    """As the reference. Of equal targets the last one wins, but in pools that no kernel serves."""
    served = [i for i, pool in enumerate(pools) if serves(pool, source_ids, page_axis)]
    if not served:
        return _reference.copy_pages(source_ids, target_ids, *pools, page_axis=page_axis)
    num_pages = pools[0].shape[page_axis]
    is_pair = (source_ids != -1) & (target_ids != -1)
    valid = is_pair & in_range(source_ids, num_pages) & in_range(target_ids, num_pages)
    sources, targets = jnp.where(valid, source_ids, -1), jnp.where(valid, target_ids, -1)
    copied = dict(enumerate(pools))
    others = [i for i in copied if i not in served]
    _, *by_reference = _reference.copy_pages(
        sources, targets, *(pools[i] for i in others), page_axis=page_axis
    )
    by_kernel = _page_copies.copy(
        sources, targets, [pools[i] for i in served], axis=page_axis, interpret=interpret
    )
    copied.update(zip(others, by_reference, strict=True))
    copied.update(zip(served, by_kernel, strict=True))
    return jnp.sum(is_pair & ~valid, dtype=jnp.int32), *copied.values()


def pages_to_rows(
    page_ids: jax.Array,
    rows: jax.Array,
    *pools: jax.Array,
    page_axis: int,
    interpret: Any = False,
) -> tuple[jax.Array, ...]:
    gather = functools.partial(gather_pages, interpret=interpret)
    return _reference.pages_to_rows(page_ids, rows, *pools, page_axis=page_axis, gather=gather)


def rows_to_pages(
    page_ids: jax.Array,
    rows: jax.Array,
    *pools: jax.Array,
    page_axis: int,
    interpret: Any = False,
) -> tuple[jax.Array, ...]:
    scatter = functools.partial(scatter_pages, interpret=interpret)
    return _reference.rows_to_pages(page_ids, rows, *pools, page_axis=page_axis, scatter=scatter)


def _checked(
    pages: jax.Array, page_ids: jax.Array, layer: jax.Array, axis: int, layered: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The ids as ``[n]``, -1 for those out of range; the layer as ``[1]``; and the ids dropped."""
    valid = in_range(page_ids, pages.shape[axis]) & in_range(layer, num_layers(pages, layered))
    ids = jnp.where(valid, page_ids, -1).reshape(-1)
    return ids, jnp.reshape(layer, 1), num_dropped(page_ids, valid)
