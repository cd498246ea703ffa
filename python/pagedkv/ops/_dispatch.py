"""One way from an op's operands to its FFI target or, on other platforms, to its reference."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from pagedkv.ops._axes import OpAxes
from pagedkv.ops._partition import Function, partitioned
from pagedkv.ops._register import platforms_of, register_targets

COUNT = jax.ShapeDtypeStruct((), "int32")


@dataclass(frozen=True, eq=False)
class Op:
    """What to run, and where. Make one a configuration, and keep it: it is compared by identity.

    `on_one_device` and `partitioned` say all that there is to say, and serve every transform and
    every mesh. Most programs have one device and no transform. For them an op is one equation of a
    primitive, and where its target has a handler that lowers to one call: nothing else is traced.

    Attributes:
      target: The FFI target, which runs where its platform has a handler for it.
      reference: What runs on other platforms. Takes and returns what the handler does.
      results: Shapes and dtypes of the results, from the operands.
      axes: How arrays of a mesh come apart. Handler, reference and kernels see those of one device.
      vmap_method: As of `jax.ffi.ffi_call`.
      aliases: Operands and the results that take their memory.
      attributes: Of the target.
      kernels: What runs instead of the reference, by platform as `jax.lax.platform_dependent`
        names it ("tpu").
    """

    target: str
    reference: Function
    results: Callable[..., Sequence[Any]]
    axes: OpAxes
    vmap_method: str
    aliases: Mapping[int, int]
    attributes: Mapping[str, Any]
    kernels: Mapping[str, Function] = field(default_factory=dict)

    def __call__(self, *operands: Any) -> tuple[jax.Array, ...]:
        """Runs the op, in a program of its own where no other is being traced.

        Differentiation is refused: a rule for it would have to read the pool that was just
        overwritten.
        """
        register_targets()
        if not _is_on_mesh(operands):
            return tuple(_op_p.bind(*operands, op=self))
        return self._on_mesh(*operands)

    def __repr__(self) -> str:
        attributes = ", ".join(f"{name}={value}" for name, value in self.attributes.items())
        return f"{self.target}({attributes})"

    def on_one_device(self, *operands: jax.Array) -> tuple[jax.Array, ...]:
        reference = jax.jit(self.reference, inline=True)  # traced once for types and branch
        # Types, not just shapes and dtypes: under shard_map they say over which mesh axes a result
        # varies, and the branches must agree on it.
        results = tuple(jax.eval_shape(reference, *operands))

        def ffi(*operands: jax.Array) -> tuple[jax.Array, ...]:
            function = jax.ffi.ffi_call(
                self.target,
                results,
                vmap_method=self.vmap_method,
                input_output_aliases=dict(self.aliases),
            )
            return tuple(function(*operands, **self.attributes))

        branches = {**self.kernels, **dict.fromkeys(platforms_of(self.target), ffi)}
        outputs: tuple[jax.Array, ...] = jax.lax.platform_dependent(
            *operands, **branches, default=reference
        )
        return outputs

    def anywhere(self, *operands: jax.Array) -> tuple[jax.Array, ...]:
        op = jax.custom_jvp(partitioned(self.on_one_device, self.axes, repr(self)))
        op.defjvp(lambda *_: self.refuse_derivative())
        return tuple(op(*operands))

    def refuse_derivative(self) -> Any:
        raise ValueError(
            f"[{self.axes.name}] has no derivative: a KV cache is for inference; put "
            "jax.lax.stop_gradient around the operands"
        )

    # Programs of their own, compiled once.

    @functools.cached_property
    def _on_mesh(self) -> Callable[..., tuple[jax.Array, ...]]:
        return jax.jit(self.anywhere, inline=True)

    @functools.cached_property
    def alone(self) -> Callable[..., tuple[jax.Array, ...]]:
        return jax.jit(lambda *operands: tuple(_op_p.bind(*operands, op=self)))


def _is_on_mesh(operands: Sequence[Any]) -> bool:
    if not jax.sharding.get_abstract_mesh().empty:
        return True
    return any(
        not jax.typeof(operand).sharding.mesh.empty
        for operand in operands
        if not isinstance(operand, np.ndarray | np.generic)
    )


# The primitive: an op in a program without a mesh.

_op_p = Primitive("pagedkv")
_op_p.multiple_results = True


def _run(*operands: jax.Array, op: Op) -> Sequence[jax.Array]:
    is_compiled = not jax.config.values["jax_disable_jit"]
    return op.alone(*operands) if is_compiled else op.anywhere(*operands)


def _types(*operands: Any, op: Op) -> Sequence[Any]:
    if any(not operand.sharding.mesh.empty for operand in operands):  # moved into a mesh since
        return [jax.typeof(result) for result in jax.eval_shape(op.anywhere, *operands)]
    return [jax.core.ShapedArray(result.shape, result.dtype) for result in op.results(*operands)]


_op_p.def_impl(_run)
_op_p.def_abstract_eval(_types)


def _is_alone(context: Any) -> bool:
    """Whether a program is for one device, and the op not in jax.shard_map."""
    return getattr(context.module_context.axis_context, "num_devices", 0) == 1


def _lower(context: Any, *operands: Any, op: Op) -> Any:
    function = op.on_one_device if _is_alone(context) else op.anywhere
    return mlir.lower_fun(function, multiple_results=True)(context, *operands)


def _lower_for(platform: str) -> Callable[..., Any]:
    def lower(context: Any, *operands: Any, op: Op) -> Any:
        if not _is_alone(context) or platform not in platforms_of(op.target):
            return _lower(context, *operands, op=op)
        rule = jax.ffi.ffi_lowering(op.target, operand_output_aliases=dict(op.aliases))
        return rule(context, *operands, **op.attributes)

    return lower


mlir.register_lowering(_op_p, _lower)
for _platform in ("cpu", "cuda"):
    mlir.register_lowering(_op_p, _lower_for(_platform), platform=_platform)


def _batch(operands: Sequence[Any], axes: Sequence[Any], *, op: Op) -> Any:
    results = jax.vmap(op.anywhere, in_axes=tuple(axes))(*operands)
    return results, (0,) * len(results)


batching.primitive_batchers[_op_p] = _batch
ad.primitive_jvps[_op_p] = lambda *_, op: op.refuse_derivative()
