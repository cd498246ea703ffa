"""One way from an op's operands to its FFI target or, on other platforms, to its reference."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from pagedkv.ops._axes import OpAxes
from pagedkv.ops._partition import partitioned
from pagedkv.ops._register import register_targets


def call(
    target: str,
    reference: Callable[..., tuple[jax.Array, ...]],
    *operands: jax.Array,
    axes: OpAxes,
    vmap_method: str,
    aliases: Mapping[int, int],
    **attributes: Any,
) -> tuple[jax.Array, ...]:
    """Calls FFI target ``target``, with the ``attributes``, on the CPU and ``reference`` elsewhere.

    Both see the arrays of one device; ``axes`` says how those of a mesh come apart.

    Differentiation is refused: a rule for it would have to read the pool that was just overwritten.
    """
    register_targets()
    reference = jax.jit(reference, inline=True)  # traced once for types and branch

    def on_one_device(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        # Types, not just shapes and dtypes: under shard_map they say over which mesh axes a result
        # varies, and the branches must agree on it.
        results = tuple(jax.eval_shape(reference, *arrays))

        def ffi(*arrays: jax.Array) -> tuple[jax.Array, ...]:
            function = jax.ffi.ffi_call(
                target, results, vmap_method=vmap_method, input_output_aliases=dict(aliases)
            )
            return tuple(function(*arrays, **attributes))

        outputs: tuple[jax.Array, ...] = jax.lax.platform_dependent(
            *arrays, cpu=ffi, default=reference
        )
        return outputs

    op = jax.custom_jvp(partitioned(on_one_device, axes, f"{target} {attributes}"))

    @op.defjvp
    def op_jvp(*_: Any) -> Any:
        raise ValueError(
            f"[{axes.name}] has no derivative: a KV cache is for inference; put "
            "jax.lax.stop_gradient around the operands"
        )

    return tuple(op(*operands))
