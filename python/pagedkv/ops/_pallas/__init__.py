"""Pallas kernels for TPUs, and adapters to those that JAX has for attention.

Imported when a program is made for such a platform, not before: Pallas takes a while to import, and
on jax 0.9 it needs absl-py, which JAX does not.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax


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
