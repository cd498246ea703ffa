"""Copies of whole pages: each is one DMA, strided where the layout has an axis before the pages."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pagedkv.ops import _reference
from pagedkv.ops._pallas._copies import MAX_IN_FLIGHT, pad_ids, run_copies, without_repeats


def gather(
    pool: jax.Array,
    ids: jax.Array,
    layer: jax.Array,
    rows: Any,
    *,
    axis: int,
    layered: bool,
    into: bool = False,
    through: bool = False,
    interpret: Any,
) -> tuple[jax.Array, ...]:
    """Copies page ``ids[i]`` of ``pool`` to ``rows[i]``, zeros for id -1.

    Args:
      pool: Counts pages on ``axis``, which its last two axes come behind.
      ids: int32, shape ``[n]``, in range, or -1.
      layer: int32, shape ``[1]``, in range.
      rows: The array to write to with ``into``, else its type: ``[n, *page]``.
      axis: Of the pages.
      layered: Whether the first axis of the pool counts layers.
      into: Whether ``rows`` is an array.
      through: Whether to return the pool too, before the rows.
      interpret: As of `jax.experimental.pallas.pallas_call`.
    """
    per_step = min(ids.shape[0], MAX_IN_FLIGHT)
    operands = [pool, jnp.zeros(rows.shape[1:], rows.dtype), *[rows] * into]
    results = [*[jax.typeof(pool)] * through, jax.typeof(rows) if into else rows]
    aliases = {2: 0} if through else {}
    if into:
        aliases[4] = len(results) - 1
    gathered: Sequence[jax.Array] = pl.pallas_call(
        functools.partial(
            _gather_kernel,
            num_operands=len(operands),
            per_step=per_step,
            axis=axis,
            layered=layered,
        ),
        out_shape=results,
        grid_spec=_grid(-(-ids.shape[0] // per_step), len(operands), len(results)),
        input_output_aliases=aliases,
        interpret=interpret,
        name="pagedkv_gather",
    )(pad_ids(ids, per_step), layer, *operands)
    return tuple(gathered)


def _gather_kernel(
    ids: Any, layer: Any, *refs: Any, num_operands: int, per_step: int, axis: int, layered: bool
) -> None:
    pool, empty, rows, semaphore = *refs[:2], *refs[-2:]
    first = pl.program_id(0) * per_step

    def copies(source_of: Any) -> Any:
        return lambda i: [
            pltpu.make_async_copy(source_of(ids[first + i]), rows.at[first + i], semaphore)
        ]

    num_ids = rows.shape[0]
    run_copies(
        per_step,
        lambda i: ids[first + i] >= 0,
        copies(lambda page: pool.at[_page(page, layer, axis, layered)]),
    )
    run_copies(
        per_step,
        lambda i: (ids[first + i] < 0) & (first + i < num_ids),
        copies(lambda _: empty),
    )


def scatter(
    pool: jax.Array,
    rows: jax.Array,
    ids: jax.Array,
    layer: jax.Array,
    *,
    axis: int,
    layered: bool,
    interpret: Any,
) -> jax.Array:
    """Copies ``rows[i]`` to page ``ids[i]``, in order; nothing for id -1. Arguments as of `gather`."""
    per_step = min(ids.shape[0], MAX_IN_FLIGHT)
    ids = without_repeats(pad_ids(ids, per_step), per_step)
    written: Sequence[jax.Array] = pl.pallas_call(
        functools.partial(_scatter_kernel, per_step=per_step, axis=axis, layered=layered),
        out_shape=[jax.typeof(pool)],
        grid_spec=_grid(ids.shape[0] // per_step, 2, 1),
        input_output_aliases={3: 0},
        interpret=interpret,
        name="pagedkv_scatter",
    )(ids, layer, rows, pool)
    return written[0]


def _scatter_kernel(
    ids: Any,
    layer: Any,
    rows: Any,
    _: Any,
    pool: Any,
    semaphore: Any,
    *,
    per_step: int,
    axis: int,
    layered: bool,
) -> None:
    first = pl.program_id(0) * per_step

    def copies_of(i: Any) -> list[Any]:
        page = pool.at[_page(ids[first + i], layer, axis, layered)]
        return [pltpu.make_async_copy(rows.at[first + i], page, semaphore)]

    run_copies(per_step, lambda i: ids[first + i] >= 0, copies_of)


def copy(
    source_ids: jax.Array,
    target_ids: jax.Array,
    pools: Sequence[jax.Array],
    *,
    axis: int,
    interpret: Any,
) -> tuple[jax.Array, ...]:
    """Copies page ``source_ids[i]`` to ``target_ids[i]`` in each pool, by way of rows of their own.

    All are read before one is written, and written in order. Both ids of a pair are in range or -1.
    """
    read = functools.partial(_reference.gather_pages, layered=False, page_axis=axis)
    rows = [jax.eval_shape(read, pool, source_ids, np.int32(0))[0] for pool in pools]
    per_step = min(source_ids.shape[0], MAX_IN_FLIGHT)
    source_ids = pad_ids(source_ids, per_step)
    target_ids = without_repeats(pad_ids(target_ids, per_step), per_step)
    copied: Sequence[jax.Array] = pl.pallas_call(
        functools.partial(_copy_kernel, num_pools=len(pools), per_step=per_step, axis=axis),
        out_shape=[*(jax.typeof(pool) for pool in pools), *rows],
        grid_spec=_grid((2, source_ids.shape[0] // per_step), len(pools), 2 * len(pools)),
        input_output_aliases={2 + i: i for i in range(len(pools))},
        interpret=interpret,
        name="pagedkv_copy",
    )(source_ids, target_ids, *pools)
    return tuple(copied[: len(pools)])


def _copy_kernel(
    source_ids: Any, target_ids: Any, *refs: Any, num_pools: int, per_step: int, axis: int
) -> None:
    pools, rows = refs[num_pools : 2 * num_pools], refs[2 * num_pools : 3 * num_pools]
    semaphore = refs[-1]
    is_write, first = pl.program_id(0) == 1, pl.program_id(1) * per_step

    def pairs_of(ids: Any, i: Any) -> list[tuple[Any, Any]]:
        at = (*(slice(None),) * axis, ids[first + i])
        return [(pool.at[at], row.at[first + i]) for pool, row in zip(pools, rows, strict=True)]

    run_copies(
        per_step,
        lambda i: ~is_write & (source_ids[first + i] >= 0),
        lambda i: [
            pltpu.make_async_copy(page, row, semaphore) for page, row in pairs_of(source_ids, i)
        ],
    )
    run_copies(
        per_step,
        lambda i: is_write & (target_ids[first + i] >= 0),
        lambda i: [
            pltpu.make_async_copy(row, page, semaphore) for page, row in pairs_of(target_ids, i)
        ],
    )


def _page(page: Any, layer: Any, axis: int, layered: bool) -> tuple[Any, ...]:
    leading = (layer[0],) if layered else ()
    return (*leading, *(slice(None),) * (axis - layered), page)


def _grid(grid: Any, num_operands: int, num_results: int) -> Any:
    """Two arrays of ids, and all others where they are."""
    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    return pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=2,
        grid=grid if isinstance(grid, tuple) else (grid,),
        in_specs=[anywhere] * num_operands,
        out_specs=[anywhere] * num_results,
        scratch_shapes=[pltpu.SemaphoreType.DMA],
    )
