"""One way from an op's operands to its FFI target or, on other platforms, to its reference."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax

from pagedkv.ops._axes import OpAxes
from pagedkv.ops._partition import Op, partitioned
from pagedkv.ops._register import platforms_of, register_targets


def call(
    target: str,
    reference: Op,
    *operands: jax.Array,
    axes: OpAxes,
    vmap_method: str,
    aliases: Mapping[int, int],
    kernels: Mapping[str, Op] = MappingProxyType({}),
    **attributes: Any,
) -> tuple[jax.Array, ...]:
    """Calls FFI target ``target``, with the ``attributes``, where its platform has a handler.

    On other platforms it runs the one of ``kernels``, by platform as `jax.lax.platform_dependent`
    names it ("tpu"), or else ``reference``. Both take and return what the handler does. All see the
    arrays of one device; ``axes`` says how those of a mesh come apart.

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

        branches = {**kernels, **dict.fromkeys(platforms_of(target), ffi)}
        outputs: tuple[jax.Array, ...] = jax.lax.platform_dependent(
            *arrays, **branches, default=reference
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
