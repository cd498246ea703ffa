"""Copies that are in flight together: all are started, then all are waited for."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

# They lie in scalar memory, 1 MiB of it, in one or two arrays.
MAX_IDS = 1 << 16
# More do not hide more latency, and DMA queues have an end.
MAX_IN_FLIGHT = 64


def run_copies(
    count: int, is_wanted: Callable[[Any], Any], copies_of: Callable[[Any], Sequence[Any]]
) -> None:
    """Runs the copies of each ``i`` in ``[0, count)`` that is wanted. No two may share a target."""

    def each(method: str) -> None:
        def body(i: Any, _: None) -> None:
            @pl.when(is_wanted(i))
            def run() -> None:
                for copy in copies_of(i):
                    getattr(copy, method)()

        jax.lax.fori_loop(np.int32(0), np.int32(count), body, None)

    each("start")
    each("wait")


def pad_ids(ids: jax.Array, multiple: int) -> jax.Array:
    """``ids`` and then -1, up to a multiple."""
    return jnp.pad(ids, (0, -ids.shape[0] % multiple), constant_values=-1)


def without_repeats(ids: jax.Array, per_step: int) -> jax.Array:
    """``[n * per_step]`` with -1 for an id that a later one of its step equals: the last one wins."""
    steps = ids.reshape(-1, per_step)
    is_later = jnp.arange(per_step)[:, None] < jnp.arange(per_step)
    repeated = jnp.any((steps[:, :, None] == steps[:, None, :]) & is_later, axis=2)
    return jnp.where(repeated, -1, steps).reshape(-1)
