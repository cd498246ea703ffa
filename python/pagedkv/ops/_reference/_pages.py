"""The ops on whole pages, as XLA gathers and scatters.

Pages are counted by axis ``page_axis`` of a pool, behind the layer axis if it is ``layered``.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pagedkv.ops._checks import bits
from pagedkv.ops._reference._ids import in_range, num_dropped, num_layers


def gather_pages(
    pages: jax.Array, page_ids: jax.Array, layer: jax.Array, *, layered: bool, page_axis: int
) -> tuple[jax.Array, jax.Array]:
    axis = page_axis + layered
    valid = in_range(page_ids, pages.shape[axis]) & in_range(layer, num_layers(pages, layered))
    page_shape = pages.shape[layered:axis] + pages.shape[axis + 1 :]
    rows_shape = page_ids.shape + page_shape
    if pages.size == 0:
        rows = jnp.zeros(rows_shape, pages.dtype)
    else:
        leading = (layer,) if layered else ()
        rows = pages.at[(*leading, *_page_index(page_ids, page_axis))].get(mode="clip")
        if not leading:  # else the indices are apart, and their axes come first already
            rows = _ids_first(rows, page_ids.ndim, page_axis)
    mask = valid.reshape(valid.shape + (1,) * len(page_shape))
    return jnp.where(mask, rows, jnp.zeros((), pages.dtype)), num_dropped(page_ids, valid)


def gather_into(
    pages: jax.Array,
    rows: jax.Array,
    page_ids: jax.Array,
    layer: jax.Array,
    *,
    layered: bool,
    page_axis: int,
) -> tuple[jax.Array, jax.Array]:
    del rows  # its memory is of use to the handlers
    return gather_pages(pages, page_ids, layer, layered=layered, page_axis=page_axis)


def gather_through(
    pages: jax.Array, page_ids: jax.Array, layer: jax.Array, *, layered: bool, page_axis: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    rows, dropped = gather_pages(pages, page_ids, layer, layered=layered, page_axis=page_axis)
    # So that XLA reads the pages before the caller writes them.
    pages, rows = jax.lax.optimization_barrier((pages, rows))
    return pages, rows, dropped


def scatter_pages(
    pages: jax.Array,
    rows: jax.Array,
    page_ids: jax.Array,
    layer: jax.Array,
    *,
    layered: bool,
    page_axis: int,
) -> tuple[jax.Array, jax.Array]:
    axis = page_axis + layered
    num_pages = pages.shape[axis]
    valid = in_range(page_ids, num_pages) & in_range(layer, num_layers(pages, layered))
    # JAX would take a negative index as one from the end.
    ids = jnp.where(valid, page_ids, num_pages)
    if not layered:
        rows = _ids_behind(rows, page_ids.ndim, page_axis)
    leading = (layer,) if layered else ()
    pages = pages.at[(*leading, *_page_index(ids, page_axis))].set(rows, mode="drop")
    return pages, num_dropped(page_ids, valid)


def copy_pages(
    source_ids: jax.Array, target_ids: jax.Array, *pools: jax.Array, page_axis: int
) -> tuple[jax.Array, ...]:
    num_pages = pools[0].shape[page_axis] if pools else 0
    is_pair = (source_ids != -1) & (target_ids != -1)
    valid = is_pair & in_range(source_ids, num_pages) & in_range(target_ids, num_pages)
    sources, targets = jnp.where(valid, source_ids, 0), jnp.where(valid, target_ids, num_pages)
    copied = []
    for pool in pools:
        index = _page_index(sources, page_axis)
        rows = pool.at[index].get(mode="clip") if pool.size else pool[index]
        copied.append(pool.at[_page_index(targets, page_axis)].set(rows, mode="drop"))
    return jnp.sum(is_pair & ~valid, dtype=jnp.int32), *copied


def pages_to_rows(
    page_ids: jax.Array,
    rows: jax.Array,
    *pools: jax.Array,
    page_axis: int,
    gather: Callable[..., tuple[jax.Array, jax.Array]] = gather_pages,
) -> tuple[jax.Array, ...]:
    """``gather`` and ``scatter`` below are what does the work, by these names here."""
    parts = []
    valid = in_range(page_ids, pools[0].shape[page_axis] if pools else 0)
    for pool in pools:
        pages = gather(pool, page_ids, jnp.int32(0), layered=False, page_axis=page_axis)[0]
        parts.append(_to_bytes(pages))
    rows = jnp.concatenate(parts, axis=1) if parts else rows
    dropped = num_dropped(page_ids, valid)
    barred = jax.lax.optimization_barrier((rows, *pools))
    return dropped, *barred


def rows_to_pages(
    page_ids: jax.Array,
    rows: jax.Array,
    *pools: jax.Array,
    page_axis: int,
    scatter: Callable[..., tuple[jax.Array, jax.Array]] = scatter_pages,
) -> tuple[jax.Array, ...]:
    first, moved = 0, []
    dropped = num_dropped(page_ids, in_range(page_ids, 0))
    for pool in pools:
        page_shape = pool.shape[:page_axis] + pool.shape[page_axis + 1 :]
        num_bytes = math.prod(page_shape) * bits(pool.dtype) // 8
        pages = _from_bytes(rows[:, first : first + num_bytes], page_shape, pool.dtype)
        written, dropped = scatter(
            pool, pages, page_ids, jnp.int32(0), layered=False, page_axis=page_axis
        )
        moved.append(written)
        first += num_bytes
    return dropped, *moved


def _page_index(ids: jax.Array, page_axis: int) -> tuple[slice | jax.Array, ...]:
    return (*(slice(None),) * page_axis, ids)


def _ids_first(rows: jax.Array, id_rank: int, page_axis: int) -> jax.Array:
    """``[*outer, *ids, *inner]`` to ``[*ids, *outer, *inner]``."""
    return jnp.moveaxis(rows, range(page_axis, page_axis + id_rank), range(id_rank))


def _ids_behind(rows: jax.Array, id_rank: int, page_axis: int) -> jax.Array:
    return jnp.moveaxis(rows, range(id_rank), range(page_axis, page_axis + id_rank))


def _to_bytes(pages: jax.Array) -> jax.Array:
    """``[n, *page]`` to uint8 ``[n, bytes]``."""
    flat = pages.reshape(pages.shape[0], -1)
    width = bits(pages.dtype)
    if width < 8:
        flat = flat.reshape(pages.shape[0], -1, 8 // width)
    return jax.lax.bitcast_convert_type(flat, jnp.uint8).reshape(pages.shape[0], -1)


def _from_bytes(rows: jax.Array, page_shape: tuple[int, ...], dtype: Any) -> jax.Array:
    width = bits(dtype)
    if width > 8:
        rows = rows.reshape(rows.shape[0], -1, width // 8)
    return jax.lax.bitcast_convert_type(rows, dtype).reshape(rows.shape[0], *page_shape)
