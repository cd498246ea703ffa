"""write_kv where tokens share a tile: the tiles of a step are read, changed and written back."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pagedkv.layouts import KVLayout
from pagedkv.ops._checks import bits
from pagedkv.ops._pallas._copies import MAX_IN_FLIGHT, pad_ids, run_copies
from pagedkv.ops._pallas._tiles import num_bytes, packing, tile_rows

_MAX_TILE_BYTES = 4 << 20  # of VMEM, for the tiles of a step


class _Place(NamedTuple):
    """Where a tile is: ``tiles`` of them follow one another in a page, with ``rows`` tokens each."""

    layout: KVLayout
    layered: bool
    rows: int
    tiles: int

    def of(self, layer: Any, tile: Any) -> tuple[Any, ...]:
        page, i = jax.lax.div(tile, self.tiles), jax.lax.rem(tile, self.tiles)
        tokens = pl.ds(pl.multiple_of(i * self.rows, self.rows), self.rows)
        if self.tiles == 1:
            tokens = pl.ds(0, self.rows)
        match self.layout:
            case KVLayout.HND:
                at: tuple[Any, ...] = (page, slice(None), tokens)
            case KVLayout.HEADS_FIRST:
                at = (slice(None), page, tokens)
            case KVLayout.LATENT:
                at = (page, tokens)
            case KVLayout.LATENT_PACKED:
                at = (page, i)
            case _:
                raise ValueError(f"tokens of {self.layout.name} share no tile")
        return (layer, *at) if self.layered else at


def write_tiles(
    slots: jax.Array,
    layer: jax.Array,
    pools: Sequence[jax.Array],
    rows: Sequence[jax.Array],
    *,
    layout: KVLayout,
    layered: bool,
    interpret: Any,
) -> tuple[jax.Array, ...]:
    """Writes ``rows[k][i]`` to slot ``slots[i]`` of ``pools[k]``, in order.

    Args:
      slots: int32, shape ``[tokens]``, in range, or -1 for none.
      layer: int32, shape ``[1]``, in range.
      pools: Of ``layout``, whose last axis but one counts tokens; with a layer axis if ``layered``.
      rows: ``[tokens, kv_heads, head_dim]``, or ``[tokens, head_dim]`` if latent, with as many
        elements as the pool.
      layout: HND, HEADS_FIRST, LATENT or LATENT_PACKED.
      layered: Whether the pools have layers.
      interpret: As of `jax.experimental.pallas.pallas_call`.
    """
    page_size = layout.sizes(pools[0].shape[layered:])["page_size"]
    in_tile = pools[0].shape[-2]
    if layout is not KVLayout.LATENT_PACKED:
        in_tile = tile_rows(page_size, pools[0].dtype)
    place = _Place(layout, layered, in_tile, page_size // in_tile)

    tiles = [(*new.shape[1:-1], in_tile, new.shape[-1]) for new in rows]
    tile_bytes = sum(num_bytes(tile, pool.dtype) for tile, pool in zip(tiles, pools, strict=True))
    per_step = max(1, min(slots.shape[0], MAX_IN_FLIGHT, _MAX_TILE_BYTES // tile_bytes))
    slots = pad_ids(slots, per_step)
    words = [_as_words(new) for new in rows]
    in_specs = [
        pl.BlockSpec(
            (per_step, *new.shape[1:]),
            functools.partial(_at_step, rank=new.ndim),
            memory_space=pltpu.VMEM,
        )
        for new in words
    ]
    anywhere = [pl.BlockSpec(memory_space=pl.ANY)] * len(pools)
    written: Sequence[jax.Array] = pl.pallas_call(
        functools.partial(_kernel, place=place, num_pools=len(pools), per_step=per_step),
        out_shape=[jax.typeof(pool) for pool in pools],
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3,
            grid=(slots.shape[0] // per_step,),
            in_specs=[*in_specs, *anywhere],
            out_specs=anywhere,
            scratch_shapes=[
                *(
                    pltpu.VMEM((per_step, *tile), pool.dtype)
                    for tile, pool in zip(tiles, pools, strict=True)
                ),
                pltpu.SemaphoreType.DMA,
            ],
        ),
        input_output_aliases={3 + len(rows) + i: i for i in range(len(pools))},
        interpret=interpret,
        name="pagedkv_write_tiles",
    )(slots, _first_of_tile(slots, in_tile, per_step), layer, *words, *pools)
    return tuple(written)


def _at_step(step: Any, *_: Any, rank: int) -> tuple[Any, ...]:
    return (step, *(0,) * (rank - 1))


def _as_words(rows: jax.Array) -> jax.Array:
    """``[tokens, ..., dim]`` to uint32 ``[tokens, ..., 1, dim]``, the bits of each in the low end."""
    unsigned = jnp.dtype(f"uint{bits(rows.dtype)}")
    words = jax.lax.bitcast_convert_type(rows, unsigned).astype(jnp.uint32)
    return words[..., None, :]


def _first_of_tile(slots: jax.Array, in_tile: int, per_step: int) -> jax.Array:
    """For each slot, the first of its step that lies in the same tile: whose copy of it is used."""
    tiles = jnp.where(slots >= 0, slots // in_tile, -1).reshape(-1, per_step)
    same = tiles[:, :, None] == tiles[:, None, :]
    return jnp.argmax(same, axis=2).astype(jnp.int32).reshape(-1)


def _kernel(
    slots: Any,
    first_of_tile: Any,
    layer: Any,
    *refs: Any,
    place: _Place,
    num_pools: int,
    per_step: int,
) -> None:
    rows, pools = refs[:num_pools], refs[2 * num_pools : 3 * num_pools]
    tiles, semaphore = refs[3 * num_pools : 4 * num_pools], refs[-1]
    first = pl.program_id(0) * per_step

    def is_first(i: Any) -> Any:
        return (slots[first + i] >= 0) & (first_of_tile[first + i] == i)

    def pairs_of(i: Any) -> list[tuple[Any, Any]]:
        at = place.of(layer[0], jax.lax.div(slots[first + i], place.rows))
        return [(pool.at[at], tile.at[i]) for pool, tile in zip(pools, tiles, strict=True)]

    def change(i: Any, _: None) -> None:
        slot = slots[first + i]

        @pl.when(slot >= 0)
        def run() -> None:
            row = jax.lax.rem(slot, place.rows)
            for new, tile in zip(rows, tiles, strict=True):
                _change_row(tile, first_of_tile[first + i], row, new[i])

    run_copies(
        per_step,
        is_first,
        lambda i: [pltpu.make_async_copy(pool, tile, semaphore) for pool, tile in pairs_of(i)],
    )
    jax.lax.fori_loop(np.int32(0), np.int32(per_step), change, None)
    run_copies(
        per_step,
        is_first,
        lambda i: [pltpu.make_async_copy(tile, pool, semaphore) for pool, tile in pairs_of(i)],
    )


def _change_row(tiles: Any, i: Any, row: Any, new: Any) -> None:
    """Puts ``new``, uint32 ``[..., 1, dim]``, in row ``row`` of tile ``i``."""
    pack, width = packing(tiles.dtype), bits(tiles.dtype)
    shift = (jax.lax.rem(row, pack) * width).astype(jnp.uint32)
    mask = jnp.uint32((1 << width) - 1) << shift
    words = pltpu.bitcast(tiles[i], jnp.uint32)
    at_row = jax.lax.broadcasted_iota(jnp.int32, words.shape, words.ndim - 2)
    changed = (words & ~mask) | (new << shift)
    words = jnp.where(at_row == jax.lax.div(row, pack), changed, words)
    tiles[i] = pltpu.bitcast(words, tiles.dtype)
