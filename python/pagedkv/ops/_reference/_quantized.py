"""Quantised pools in jnp, with the arithmetic of the handlers, bit for bit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pagedkv.layouts import KVLayout
from pagedkv.ops._quantized import LARGEST
from pagedkv.ops._reference._ids import in_range, num_layers
from pagedkv.ops._reference._pages import gather_pages
from pagedkv.ops._reference._write_kv import INTERLEAVED, row_index, split_axis, write_kv

_SMALLEST = np.float32(1e-34)  # below it the reciprocal of a scale would be infinite


def write_kv_quantized(
    slot_mapping: jax.Array,
    layer: jax.Array,
    *arrays: jax.Array,
    layout: KVLayout,
    layered: bool,
) -> tuple[jax.Array, ...]:
    """One row after the other: the scale of a page depends on the rows before."""
    num_pools = 1 if layout.is_shared else 2
    pools, scales = arrays[:num_pools], arrays[num_pools : 2 * num_pools]
    rows = arrays[2 * num_pools :]

    def body(carry: Any, token: Any) -> tuple[Any, jax.Array]:
        slot, *new = token
        pools, scales = carry
        written = _write_row(slot, layer, pools, scales, new, layout=layout, layered=layered)
        return written[1:], written[0]

    carry, dropped = jax.lax.scan(body, (pools, scales), (slot_mapping, *rows))
    return jnp.sum(dropped, dtype=jnp.int32), *carry[0], *carry[1]


def _write_row(
    slot: jax.Array,
    layer: jax.Array,
    pools: tuple[jax.Array, ...],
    scales: tuple[jax.Array, ...],
    rows: list[jax.Array],
    *,
    layout: KVLayout,
    layered: bool,
) -> tuple[jax.Array, tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    page_size = layout.sizes(pools[0].shape[layered:])["page_size"]
    codes, new_pools, new_scales = [], list(pools), list(scales)
    for stream, row in enumerate(rows):
        i = min(stream, len(pools) - 1)
        code = np.dtype(pools[i].dtype)
        numbers = row.astype(jnp.float32)
        largest = jnp.max(jnp.abs(numbers), axis=-1)
        largest = jnp.where(jnp.isfinite(largest), largest, jnp.nan)
        needed = jnp.where(
            largest < _SMALLEST, 0, largest * (np.float32(1) / np.float32(LARGEST[code.name]))
        )
        at, granularity = _scale_index(
            slot,
            layer,
            stream,
            1 if layout.is_latent else row.shape[0],
            pools[i],
            new_scales[i],
            layout,
            layered,
        )
        before = new_scales[i].at[at].get(mode="clip").reshape(row.shape[:-1])
        if granularity == "static":
            scale = before
        else:
            scale = needed
            if granularity == "page":
                before = jnp.where(slot % max(page_size, 1) == 0, 0, before)
                scale = _grown(before, needed)
                new_pools[i] = _rescale(
                    new_pools[i], slot, layer, stream, row.shape, before, scale, layout, layered
                )
            new_scales[i] = (
                new_scales[i]
                .at[at]
                .set(scale.reshape(new_scales[i].at[at].get(mode="clip").shape), mode="drop")
            )
        factor = jnp.where(scale == 0, 0, 1 / scale)
        factor = jnp.where(jnp.isfinite(factor), factor, 0)
        codes.append(_quantize(numbers * factor[..., None], code)[None])
    dropped, *written = write_kv(
        slot[None], layer, *new_pools, *codes, layout=layout, layered=layered
    )
    return dropped, tuple(written), tuple(new_scales)


def _grown(before: jax.Array, needed: jax.Array) -> jax.Array:
    def double(scale: jax.Array) -> jax.Array:
        return jnp.where((scale < needed) & jnp.isfinite(needed), 2 * scale, scale)

    def must_grow(scale: jax.Array) -> jax.Array:
        return jnp.any((scale < needed) & jnp.isfinite(needed) & (before > 0))

    grown = jax.lax.while_loop(must_grow, double, before)
    grown = jnp.where(jnp.isfinite(needed), grown, needed)
    return jnp.where(before == 0, needed, jnp.where(jnp.isfinite(before), grown, before))


def _rescale(
    pool: jax.Array,
    slot: jax.Array,
    layer: jax.Array,
    stream: int,
    row_shape: tuple[int, ...],
    before: jax.Array,
    scale: jax.Array,
    layout: KVLayout,
    layered: bool,
) -> jax.Array:
    """Quantises the rows of the page again, where its scale has grown."""
    page_size = layout.sizes(pool.shape[layered:])["page_size"]
    num_pages = layout.sizes(pool.shape[layered:])["pages"]
    offsets = jnp.arange(page_size)
    valid = in_range(slot, num_pages * page_size) & in_range(layer, num_layers(pool, layered))
    page = jnp.where(valid, slot // max(page_size, 1), num_pages) + 0 * offsets
    shape = (page_size, *row_shape)
    index = row_index(page, offsets, stream, shape, pool.shape[layered:], layout)
    at = (layer, *index) if layered else tuple(index)
    rows = pool.at[at].get(mode="clip").astype(jnp.float32)
    factor = jnp.where(before == scale, 1, before / scale)
    factor = jnp.where(jnp.isfinite(factor), factor, 0)
    again = _quantize(rows * factor[..., None], np.dtype(pool.dtype))
    changed = ((before != 0) & (before != scale))[..., None]
    kept = pool.at[at].get(mode="clip")
    return pool.at[at].set(jnp.where(changed, again, kept), mode="drop")


def _quantize(numbers: jax.Array, code: Any) -> jax.Array:
    clamped = jnp.clip(numbers, -LARGEST[code.name], LARGEST[code.name])
    return (jnp.round(clamped) if code.name in ("int8", "int4") else clamped).astype(code)


def _scale_index(
    slot: jax.Array,
    layer: jax.Array,
    stream: int,
    num_heads: int,
    pool: jax.Array,
    scales: jax.Array,
    layout: KVLayout,
    layered: bool,
) -> tuple[tuple[Any, ...], str]:
    """Selects the scales of the heads of a row, and says what shares one."""
    shape = pool.shape[layered:]
    sizes = layout.sizes(shape)
    num_pages, page_size = sizes["pages"], sizes["page_size"]
    valid = in_range(slot, num_pages * page_size) & in_range(layer, num_layers(pool, layered))
    heads = jnp.arange(num_heads)
    where = {
        "pages": jnp.where(valid, slot // max(page_size, 1), num_pages),
        "page_size": slot % max(page_size, 1),
        "kv_heads": 2 * heads + stream if layout in INTERLEAVED else heads,
    }
    kept, granularity = _kept_axes(layout, scales.ndim - layered)
    index = [
        at
        for name in dict.fromkeys(layout.axes)
        if name in kept
        for at in split_axis(where[name], shape, layout, name)
    ]
    if layout is KVLayout.SIDE_BY_SIDE:
        index.append(stream)
    return ((layer, *index) if layered else tuple(index)), granularity


def read_scales(
    slots: jax.Array,
    layer: jax.Array,
    stream: int,
    num_heads: int,
    pool: jax.Array,
    scales: jax.Array,
    layout: KVLayout,
) -> jax.Array:
    """The scales of the rows in ``slots``: float32 ``[slots, heads]``."""
    layered = pool.ndim > len(layout.axes)

    def of_slot(slot: jax.Array) -> jax.Array:
        at, _ = _scale_index(slot, layer, stream, num_heads, pool, scales, layout, layered)
        return scales.at[at].get(mode="clip").reshape(num_heads)

    return jax.vmap(of_slot)(slots)


def _kept_axes(layout: KVLayout, rank: int) -> tuple[tuple[str, ...], str]:
    """The axes of a layer's pool that its scales have too, by their number, and what shares one."""
    num_own = rank - layout.axes.count("kv_heads") - (layout is KVLayout.SIDE_BY_SIDE)
    if num_own == 0:
        return ("kv_heads",), "static"
    if num_own == 1:
        return ("kv_heads", "pages"), "page"
    return ("kv_heads", "pages", "page_size"), "token"


def gather_dequantized(
    pages: jax.Array,
    scales: jax.Array,
    page_ids: jax.Array,
    layer: jax.Array,
    *,
    layout: KVLayout,
    layered: bool,
    dtype: Any,
) -> tuple[jax.Array, jax.Array]:
    axis = layout.page_axis
    rows, dropped = gather_pages(pages, page_ids, layer, layered=layered, page_axis=axis)
    names = [name for name in layout.axes if name != "pages"]
    page_shape = rows.shape[page_ids.ndim :]
    side = layout is KVLayout.SIDE_BY_SIDE
    kept, granularity = _kept_axes(layout, scales.ndim - layered)
    if granularity == "static":
        of_pages = scales[layer] if layered else scales
        of_pages = jnp.broadcast_to(of_pages, page_ids.shape + of_pages.shape)
    else:
        of_pages = gather_pages(scales, page_ids, layer, layered=layered, page_axis=axis)[0]
    shape = [size if name in kept else 1 for name, size in zip(names, page_shape, strict=True)]
    if side:
        half = page_shape[-1] // 2
        of_pages = of_pages.reshape(*page_ids.shape, *shape[:-1], 2)
        of_pages = jnp.repeat(of_pages, half, axis=-1)
    else:
        of_pages = of_pages.reshape(*page_ids.shape, *shape)
    valid = in_range(page_ids, pages.shape[axis + layered])
    valid &= in_range(layer, num_layers(pages, layered))
    numbers = rows.astype(jnp.float32) * of_pages
    mask = valid.reshape(valid.shape + (1,) * len(page_shape))
    return jnp.where(mask, numbers, 0).astype(dtype), dropped
