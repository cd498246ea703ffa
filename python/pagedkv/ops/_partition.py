"""How an op runs on arrays that are sharded over a mesh: each device on its own part of the pool.

All follows from the names in an `OpAxes`: the partitioning of a program whose mesh axes are Auto,
the `jax.shard_map` where they are Explicit, ids of pages that lie on other devices, and what
`jax.vmap` puts in front.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.experimental.custom_partitioning import (
    ArrayMapping,
    CompoundFactor,
    SdyShardingRule,
    custom_partitioning,
)
from jax.sharding import AxisType, NamedSharding

from pagedkv.ops._axes import OpAxes, Placement, may_be_sharded, partition_spec
from pagedkv.ops._local_ids import on_own_pages

# Of the arrays of one device, or of all.
Function = Callable[..., tuple[jax.Array, ...]]
# What one device runs, if arrays are placed like that.
FunctionFor = Callable[[Placement], Function]


def partitioned(op: Function, axes: OpAxes, identity: str) -> Function:
    """Makes of ``op``, for arrays of one device, an op for arrays sharded as ``axes`` allows.

    ``identity`` is another string for every other op.
    """

    def op_for(placement: Placement) -> Function:
        mesh_axes = placement.get("pages")
        return on_own_pages(op, axes, mesh_axes) if mesh_axes else op

    return _partitioned(op_for, axes, identity)


def _partitioned(op_for: FunctionFor, axes: OpAxes, identity: str) -> Function:
    @jax.custom_batching.custom_vmap
    def on_mesh(*operands: jax.Array) -> tuple[jax.Array, ...]:
        mesh = _explicit_mesh(operands)
        if mesh is not None:
            return _explicit(op_for, axes, mesh, operands)
        return _auto(op_for, axes, identity, operands)

    # custom_partitioning has no rule for batches, so the batch is made before it.
    @on_mesh.def_vmap
    def on_batch(_: int, mapped: list[bool], *operands: jax.Array) -> Any:
        in_axes = tuple(0 if is_mapped else None for is_mapped in mapped)

        def op_for_batch(placement: Placement) -> Function:
            return jax.vmap(op_for(placement), in_axes)

        results = _partitioned(op_for_batch, axes.under_vmap(mapped), identity)(*operands)
        return results, (True,) * len(results)

    def op(*operands: jax.Array) -> tuple[jax.Array, ...]:
        kinds = set(jax.sharding.get_abstract_mesh().axis_types)
        if kinds == {AxisType.Manual}:  # in jax.shard_map, where arrays are one device's already
            return op_for({})(*operands)
        if AxisType.Manual in kinds:  # XLA would gather the pools over the other mesh axes
            raise ValueError(
                f"[{axes.name}] inside jax.shard_map all mesh axes must be manual, got "
                f"{jax.sharding.get_abstract_mesh()}; leave axis_names out"
            )
        results: tuple[jax.Array, ...] = on_mesh(*operands)
        return results

    return op


# Explicit mesh axes: the types of the operands say how they are sharded.


def _explicit_mesh(operands: Sequence[jax.Array]) -> Any:
    for operand in operands:
        mesh = jax.typeof(operand).sharding.mesh
        if AxisType.Explicit in mesh.axis_types:
            return mesh
    return None


def _explicit(
    op_for: FunctionFor, axes: OpAxes, mesh: Any, operands: Sequence[jax.Array]
) -> tuple[jax.Array, ...]:
    types = [jax.typeof(operand) for operand in operands]
    placement = axes.place([t.shape for t in types], [t.sharding for t in types], mesh.shape)
    in_specs = tuple(partition_spec(names, placement) for names in axes.operands.values())
    function = jax.shard_map(
        op_for(placement),
        mesh=mesh,
        in_specs=in_specs,
        axis_names=_axes_to_map(mesh),
        out_specs=tuple(partition_spec(names, placement) for names in axes.results),
        # The count of bad ids is the same on all devices, but its type cannot say so.
        check_vma=False,
    )
    # Nothing happens to those that lie as they should, the pools among them.
    placed = (
        jax.sharding.reshard(operand, NamedSharding(mesh, spec))
        for operand, spec in zip(operands, in_specs, strict=True)
    )
    results: tuple[jax.Array, ...] = function(*placed)
    return results


def _axes_to_map(mesh: Any) -> set[str]:
    """The Explicit mesh axes. As an empty set, which is all, where there are no others."""
    if set(mesh.axis_types) == {AxisType.Explicit}:
        return set()
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return {name for name, kind in kinds if kind == AxisType.Explicit}


# Auto mesh axes: XLA's partitioner says, when it compiles, how the operands are sharded. In a program
# for one device JAX puts the op in as it is.


def _auto(
    op_for: FunctionFor, axes: OpAxes, identity: str, operands: Sequence[jax.Array]
) -> tuple[jax.Array, ...]:
    # A program says nothing of the op before it is partitioned. This operand does, or two programs
    # would have one key in JAX's persistent cache.
    digest = hashlib.sha256(f"{identity} {axes}".encode()).digest()
    keyed = replace(axes, operands={"digest": ("words",), **axes.operands})
    arrays = (np.frombuffer(digest, np.int32), *operands)

    def keyed_op(placement: Placement) -> Function:
        op = op_for(placement)
        return lambda _, *operands: op(*operands)

    def place(mesh: Any, operands: Sequence[Any]) -> Placement:
        shapes = [operand.shape for operand in operands]
        return keyed.place(shapes, [operand.sharding for operand in operands], mesh.shape)

    def shardings(
        mesh: Any, arrays: Iterable[tuple[str, ...]], placement: Placement
    ) -> tuple[NamedSharding, ...]:
        return tuple(NamedSharding(mesh, partition_spec(names, placement)) for names in arrays)

    def partition(mesh: Any, operands: Sequence[Any], _: Any) -> Any:
        placement = place(mesh, operands)
        return (
            mesh,
            keyed_op(placement),
            shardings(mesh, keyed.results, placement),
            shardings(mesh, keyed.operands.values(), placement),
        )

    def infer_sharding_from_operands(mesh: Any, operands: Sequence[Any], _: Any) -> Any:
        return shardings(mesh, keyed.results, place(mesh, operands))

    op = keyed_op({})
    shapes = [array.shape for array in (*arrays, *jax.eval_shape(op, *arrays))]
    function = custom_partitioning(op)
    function.def_partition(
        partition,
        infer_sharding_from_operands=infer_sharding_from_operands,
        sharding_rule=lambda *_: _sharding_rule(keyed, shapes),
    )
    return tuple(function(*arrays))


def _sharding_rule(axes: OpAxes, shapes: Sequence[tuple[int, ...]]) -> SdyShardingRule:
    """Ties the axes of pools and results, by name. Other operands follow, and do not lead."""
    arrays = [*axes.operands.values(), *axes.results]
    num_operands = len(axes.operands)
    of_pools = {name for names in axes.operands.values() if "pages" in names for name in names}
    tied: dict[str, int] = {}  # the smallest size that arrays of a name have
    for i, (names, shape) in enumerate(zip(arrays, shapes, strict=True)):
        for name, size in zip(names, shape, strict=True):
            leads = i >= num_operands or "pages" in names or name not in of_pools
            if leads and may_be_sharded(name):
                tied[name] = min(size, tied.get(name, size))

    factor_sizes: dict[str, Any] = {}
    mappings = []
    for i, (names, shape) in enumerate(zip(arrays, shapes, strict=True)):
        mapping: list[Any] = []
        for name, size in zip(names, shape, strict=True):
            own = f"{name}_{i}"
            leads = i >= num_operands or "pages" in names or name not in of_pools
            parts = tied.get(name, 0) if leads else 0
            if parts == 0 or size % parts != 0:
                mapping.append(own)
            elif size == parts:
                mapping.append(name)
            else:  # neighbours together
                mapping.append(CompoundFactor(name, own))
                factor_sizes[own] = size // parts
        mappings.append(ArrayMapping(*mapping))
    return SdyShardingRule(
        tuple(mappings[:num_operands]), tuple(mappings[num_operands:]), **factor_sizes
    )
