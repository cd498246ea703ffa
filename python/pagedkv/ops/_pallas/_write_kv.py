"""write_kv for TPUs."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from pagedkv.layouts import KVLayout
from pagedkv.ops import _reference
from pagedkv.ops._pallas._copies import MAX_IDS
from pagedkv.ops._pallas._tiles import is_row_major
from pagedkv.ops._pallas._write_rows import write_rows
from pagedkv.ops._pallas._write_tiles import write_tiles
from pagedkv.ops._reference._ids import in_range, num_dropped, num_layers
from pagedkv.ops._reference._write_kv import INTERLEAVED

# A token's row is whole tiles.
_BY_ROWS = (KVLayout.NHD, KVLayout.FUSED, KVLayout.FUSED_PACKED, KVLayout.SIDE_BY_SIDE)
# A tile holds rows of several tokens.
_BY_TILES = (KVLayout.HND, KVLayout.HEADS_FIRST, KVLayout.LATENT, KVLayout.LATENT_PACKED)


def write_kv(
    slot_mapping: jax.Array,
    layer: jax.Array,
    *pools_and_rows: jax.Array,
    layout: KVLayout,
    layered: bool,
    interpret: Any = False,
) -> tuple[jax.Array, ...]:
    """As the reference. Of equal slots the last one wins."""
    num_pools = 1 if layout.is_shared else 2
    pools, rows = pools_and_rows[:num_pools], pools_and_rows[num_pools:]
    if not serves(slot_mapping, pools, layout):
        return _reference.write_kv(
            slot_mapping, layer, *pools_and_rows, layout=layout, layered=layered
        )
    sizes = layout.sizes(pools[0].shape[layered:])
    valid = in_range(slot_mapping, sizes["pages"] * sizes["page_size"])
    valid &= in_range(layer, num_layers(pools[0], layered))
    slots, layers = jnp.where(valid, slot_mapping, -1), jnp.reshape(layer, 1)
    if layout in _BY_ROWS:
        tokens = _token_rows(pools, rows, layout)
        written = write_rows(slots, layers, pools, tokens, layered=layered, interpret=interpret)
    else:
        padded = [_pad(new, pool.shape[-1:]) for new, pool in zip(rows, pools, strict=True)]
        written = write_tiles(
            slots, layers, pools, padded, layout=layout, layered=layered, interpret=interpret
        )
    return num_dropped(slot_mapping, valid), *written


def serves(slots: jax.Array, pools: Sequence[jax.Array], layout: KVLayout) -> bool:
    """Whether a kernel writes to pools like these; else the reference does."""
    known = layout in (*_BY_ROWS, *_BY_TILES)
    return known and 0 < slots.size <= MAX_IDS and all(map(is_row_major, pools))


def _token_rows(
    pools: Sequence[jax.Array], rows: Sequence[jax.Array], layout: KVLayout
) -> list[jax.Array]:
    """What each pool has for a token, zeros where it has more than the rows."""
    if layout is KVLayout.NHD:
        return list(rows)
    num_tokens, shape = rows[0].shape[0], pools[0].shape
    # The axes of the heads and of their elements.
    heads, dim = shape[-3] * shape[-2], shape[-1]
    if layout is KVLayout.FUSED:
        heads = shape[-2]
    if layout in INTERLEAVED:
        token = jnp.stack(rows, axis=2).reshape(num_tokens, -1, rows[0].shape[-1])
    else:
        token = jnp.concatenate([_pad(new, (dim // 2,)) for new in rows], axis=-1)
    row = shape[-2:] if layout is KVLayout.FUSED else shape[-3:]
    return [_pad(token, (heads, dim)).reshape(num_tokens, *row)]


def _pad(rows: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """``rows`` with zeros behind, where its last axes are shorter than ``sizes``."""
    first = rows.ndim - len(sizes)
    widths = [(0, 0)] * first
    widths += [(0, size - has) for has, size in zip(rows.shape[first:], sizes, strict=True)]
    return jnp.pad(rows, widths) if any(behind for _, behind in widths) else rows
