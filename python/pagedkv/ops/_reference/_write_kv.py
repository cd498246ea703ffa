"""write_kv as XLA scatters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pagedkv.layouts import KVLayout
from pagedkv.ops._reference._ids import in_range, num_dropped, num_layers

INTERLEAVED = (KVLayout.FUSED, KVLayout.FUSED_PACKED)


def write_kv(
    slot_mapping: jax.Array,
    layer: jax.Array,
    *pools_and_rows: jax.Array,
    layout: KVLayout,
    layered: bool,
) -> tuple[jax.Array, ...]:
    """Returns the count of dropped slots and the new pools."""
    num_pools = 1 if layout.is_shared else 2
    pools, rows = list(pools_and_rows[:num_pools]), pools_and_rows[num_pools:]
    sizes = layout.sizes(pools[0].shape[layered:])
    num_pages, page_size = sizes["pages"], sizes["page_size"]
    valid = in_range(slot_mapping, num_pages * page_size)
    valid &= in_range(layer, num_layers(pools[0], layered))
    # JAX would take a negative index as one from the end, so every bad slot goes past the last
    # page, where mode="drop" drops it.
    divisor = np.int32(max(page_size, 1))
    page = jnp.where(valid, jax.lax.div(slot_mapping, divisor), num_pages)
    offset = jnp.where(valid, jax.lax.rem(slot_mapping, divisor), 0)
    leading = (layer,) if layered else ()
    for stream, new in enumerate(rows):
        i = min(stream, num_pools - 1)
        if layout.pads and stream == 0:  # what a token has beyond its rows
            token = (
                *leading,
                page,
                *split_axis(offset, pools[i].shape[layered:], layout, "page_size"),
            )
            pools[i] = pools[i].at[token].set(0, mode="drop")
        index = row_index(page, offset, stream, new.shape, pools[i].shape[layered:], layout)
        pools[i] = pools[i].at[(*leading, *index)].set(new, mode="drop")
    return num_dropped(slot_mapping, valid), *pools


def row_index(
    page: jax.Array,
    offset: jax.Array,
    stream: int,
    rows_shape: tuple[int, ...],
    shape: tuple[int, ...],
    layout: KVLayout,
) -> list[Any]:
    """What selects the rows of a stream, in their shape, in one layer's pool of ``shape``."""
    dim = rows_shape[-1]
    first = stream * (shape[-1] // 2) if layout is KVLayout.SIDE_BY_SIDE else 0
    where: dict[str, Any] = {"pages": page, "page_size": offset}
    where["head_dim"] = slice(first, first + dim)
    if layout is KVLayout.LATENT_TRANSPOSED:
        where = {"pages": page[:, None], "page_size": offset[:, None], "head_dim": jnp.arange(dim)}
    elif layout is KVLayout.NHD:
        where["kv_heads"] = slice(None)
    elif not layout.is_latent:
        heads = jnp.arange(rows_shape[1])
        if layout in INTERLEAVED:
            heads = 2 * heads + stream
        where |= {"pages": page[:, None], "page_size": offset[:, None], "kv_heads": heads}
    return [
        index
        for name in dict.fromkeys(layout.axes)
        for index in split_axis(where[name], shape, layout, name)
    ]


def split_axis(index: Any, shape: tuple[int, ...], layout: KVLayout, name: str) -> list[Any]:
    """An index into the axes of ``name``, of which the last counts fastest."""
    sizes = [size for axis, size in zip(layout.axes, shape, strict=True) if axis == name]
    if len(sizes) == 1:
        return [index]
    return [index // max(sizes[1], 1), index % max(sizes[1], 1)]
