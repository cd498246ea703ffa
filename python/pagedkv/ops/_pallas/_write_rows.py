"""write_kv where a token's row is whole tiles: one copy a token and pool, from VMEM to the page."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pagedkv.ops._pallas._copies import MAX_IN_FLIGHT, pad_ids, run_copies, without_repeats
from pagedkv.ops._pallas._tiles import num_bytes

# Of VMEM, for rows; the next step's are fetched meanwhile, so twice this is used.
_MAX_ROW_BYTES = 4 << 20


def write_rows(
    slots: jax.Array,
    layer: jax.Array,
    pools: Sequence[jax.Array],
    rows: Sequence[jax.Array],
    *,
    layered: bool,
    interpret: Any,
) -> tuple[jax.Array, ...]:
    """Copies ``rows[k][i]`` to slot ``slots[i]`` of ``pools[k]``.

    Args:
      slots: int32, shape ``[tokens]``, in range, or -1 for none.
      layer: int32, shape ``[1]``, in range.
      pools: ``[pages, page_size, *row]``, and a layer axis before these if ``layered``.
      rows: ``[tokens, *row]`` for each pool.
      layered: Whether the pools have layers.
      interpret: As of `jax.experimental.pallas.pallas_call`.
    """
    num_tokens = slots.shape[0]
    row_bytes = sum(num_bytes(new.shape[1:], new.dtype) for new in rows)
    per_step = max(1, min(num_tokens, MAX_IN_FLIGHT, _MAX_ROW_BYTES // row_bytes))
    slots = without_repeats(pad_ids(slots, per_step), per_step)
    kernel = functools.partial(
        _kernel,
        page_size=pools[0].shape[layered + 1],
        layered=layered,
        num_pools=len(pools),
        per_step=per_step,
    )
    in_specs = [_rows_of_step(per_step, new.shape[1:]) for new in rows]
    anywhere = [pl.BlockSpec(memory_space=pl.ANY)] * len(pools)
    written: Sequence[jax.Array] = pl.pallas_call(
        kernel,
        out_shape=[jax.typeof(pool) for pool in pools],
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(slots.shape[0] // per_step,),
            in_specs=[*in_specs, *anywhere],
            out_specs=anywhere,
            scratch_shapes=[pltpu.SemaphoreType.DMA],
        ),
        input_output_aliases={2 + len(rows) + i: i for i in range(len(pools))},
        interpret=interpret,
        name="pagedkv_write_rows",
    )(slots, layer, *rows, *pools)
    return tuple(written)


def _rows_of_step(per_step: int, row: tuple[int, ...]) -> pl.BlockSpec:
    return pl.BlockSpec(
        (per_step, *row), lambda step, *_: (step, *(0,) * len(row)), memory_space=pltpu.VMEM
    )


def _kernel(
    slots: Any,
    layer: Any,
    *refs: Any,
    page_size: int,
    layered: bool,
    num_pools: int,
    per_step: int,
) -> None:
    rows, pools, semaphore = refs[:num_pools], refs[2 * num_pools : 3 * num_pools], refs[-1]
    first = pl.program_id(0) * per_step

    def copies_of(i: Any) -> list[Any]:
        slot = slots[first + i]
        page, offset = jax.lax.div(slot, page_size), jax.lax.rem(slot, page_size)
        at = (layer[0], page, offset) if layered else (page, offset)
        return [
            pltpu.make_async_copy(new.at[i], pool.at[at], semaphore)
            for new, pool in zip(rows, pools, strict=True)
        ]

    run_copies(per_step, lambda i: slots[first + i] >= 0, copies_of)
