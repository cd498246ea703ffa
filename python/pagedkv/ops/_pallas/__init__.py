"""Pallas kernels for TPUs, and adapters to those that JAX has for attention.

Imported when a program is made for such a platform, not before: Pallas takes a while to import, and
on jax 0.9 it needs absl-py, which JAX does not.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

_NUM_OPERANDS_BEFORE_POOLS = 9  # of paged_attention


def on_tpu(reference: Any) -> Mapping[str, Callable[..., tuple[jax.Array, ...]]]:
    """The kernels of an op, by platform, from its reference: a `functools.partial`.

    The kernel has the name and the arguments of the function. Where Pallas is not to be had, the
    reference runs.
    """

    @functools.wraps(reference.func)
    def kernel(*operands: jax.Array) -> tuple[jax.Array, ...]:
        try:
            import jax.experimental.pallas.tpu
        except ImportError:
            results: tuple[jax.Array, ...] = reference(*operands)
            return results
        from pagedkv.ops._pallas import _tpu

        function: Callable[..., tuple[jax.Array, ...]] = getattr(_tpu, reference.func.__name__)
        return function(*operands, **reference.keywords)

    return {"tpu": kernel}


def for_attention(
    reference: Any, window: int | None
) -> Mapping[str, Callable[..., tuple[jax.Array, ...]]]:
    """What runs `paged_attention` where JAX has a kernel for its operands, by platform.

    For calls with a mask that is known now, a window or none, and with nothing else that JAX's
    kernels do not have: no chunks, sinks, scales nor heads that the pool was rounded up by.
    """
    static = reference.keywords
    by_reference: Callable[..., tuple[jax.Array, ...]] = reference

    def on(platform: str, *operands: jax.Array) -> tuple[jax.Array, ...]:
        try:
            from pagedkv.ops._pallas import attention
        except ImportError:
            return by_reference(*operands)
        query, page_table, query_starts, context_lens, layer, *_ = operands
        pools = operands[_NUM_OPERANDS_BEFORE_POOLS:]
        key_pages, value_pages = pools if len(pools) == 2 else (pools[0], None)
        form = {
            "layered": static["layered"],
            "layout": static["layout"],
            "window": window,
            "soft_cap": static["soft_cap"] or None,
        }
        if not attention.supports(platform, query, key_pages, value_pages, page_table, **form):
            return by_reference(*operands)
        return attention.paged_attention(
            platform,
            query,
            key_pages,
            value_pages,
            page_table,
            query_starts,
            context_lens,
            layer,
            scale=static["scale"],
            **form,
        )

    return {"tpu": functools.partial(on, "tpu"), "cuda": functools.partial(on, "gpu")}
