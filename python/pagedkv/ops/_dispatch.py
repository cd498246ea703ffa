"""One way from an op's operands to its FFI target or, on other platforms, to its reference."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from pagedkv.ops._register import register_targets


def call(
    target: str,
    reference: Callable[..., tuple[jax.Array, ...]],
    *operands: jax.Array,
    vmap_method: str,
    aliases: Mapping[int, int],
    **attributes: Any,
) -> tuple[jax.Array, ...]:
    """Calls FFI target ``target``, with the ``attributes``, on the CPU and ``reference`` elsewhere.

    Differentiation is refused: a rule for it would have to read the pool that was just overwritten.
    """
    register_targets()

    # Types, not just shapes and dtypes: under shard_map they say over which mesh axes a result
    # varies, and the branches must agree on it.
    results = tuple(jax.eval_shape(reference, *operands))

    def ffi(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        function = jax.ffi.ffi_call(
            target, results, vmap_method=vmap_method, input_output_aliases=dict(aliases)
        )
        return tuple(function(*arrays, **attributes))

    @jax.custom_jvp
    def op(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        outputs: tuple[jax.Array, ...] = jax.lax.platform_dependent(
            *arrays, cpu=ffi, default=reference
        )
        return outputs

    @op.defjvp
    def op_jvp(*_: Any) -> Any:
        name = target.split(".")[1]
        raise ValueError(
            f"[{name}] has no derivative: a KV cache is for inference; put "
            "jax.lax.stop_gradient around the operands"
        )

    return op(*operands)
