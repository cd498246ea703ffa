"""Ids of a pool whose pages are sharded: what each device makes of them."""

import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pagedkv.ops import _checks
from pagedkv.ops._axes import MeshAxes, OpAxes

_MAX_INT32 = 2**31 - 1


def local_ids(ids: ArrayLike, num_local: int, axis_name: str | Sequence[str]) -> jax.Array:
    """Turns ids of a whole pool into ids of the part that this device has.

    For use in `jax.shard_map`, where the pages of a pool are sharded and the ids replicated. Device
    ``i`` of the mesh axis has the pages, or slots, from ``i * num_local`` to
    ``(i + 1) * num_local - 1``. Ids that count from 0 on each device need none of this.

    Args:
      ids: int32, any shape: page ids, or slots.
      num_local: Pages of one device, or its slots: pages times page_size.
      axis_name: The mesh axis that the pages are sharded over, or several, the major one first.

    Returns:
      int32, the shape of ``ids``: from 0 what this device has, -1 what another one has. Ids of no
      device stay as they are, so an op counts them as out of range on every device alike.

    Raises:
      TypeError: If the ids are no int32 array, or ``num_local`` is no int.
      ValueError: If ``num_local`` is negative, or all devices together have more ids than int32
        can number.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jax.sharding import PartitionSpec as P
      >>> from pagedkv.ops import local_ids
      >>> mesh = jax.make_mesh((jax.device_count(),), ("dp",))
      >>> local = jax.shard_map(
      ...     lambda ids: local_ids(ids, 8, "dp"), mesh=mesh, in_specs=P(), out_specs=P("dp")
      ... )
      >>> local(jnp.int32([7, -1, 8000])).tolist()[:3]  # on the first device
      [7, -1, 8000]
    """
    operation = "local_ids"
    _checks.check_int32(operation, "ids", _checks.as_array(operation, "ids", ids))
    if not isinstance(num_local, int) or isinstance(num_local, bool):
        raise TypeError(f"[{operation}] num_local must be int, got {type(num_local).__name__}")
    if num_local < 0:
        raise ValueError(f"[{operation}] num_local must be at least 0, got {num_local}")
    names = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)
    num_global = num_local * math.prod(jax.lax.axis_size(name) for name in names)
    if num_global > _MAX_INT32:
        raise ValueError(
            f"[{operation}] all devices together must have at most {_MAX_INT32} ids, which int32 "
            f"can number, got {num_global}"
        )
    array = jnp.asarray(ids)
    first = jax.lax.axis_index(names) * num_local
    is_own = (array >= first) & (array < first + num_local)
    is_foreign = (array >= 0) & (array < num_global) & ~is_own
    return jnp.where(is_own, array - first, jnp.where(is_foreign, -1, array))


def on_own_pages(
    op: Callable[..., tuple[jax.Array, ...]], axes: OpAxes, mesh_axes: MeshAxes
) -> Callable[..., tuple[jax.Array, ...]]:
    """``op`` with ids of the whole pool, on a device that has a part of its pages."""
    pool = next(name for name, names in axes.operands.items() if "pages" in names)

    def run(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        operands = dict(zip(axes.operands, arrays, strict=True))
        sizes = dict(zip(axes.operands[pool], operands[pool].shape, strict=True))
        local = {
            name: local_ids(operands[name], _count(sizes, counted), mesh_axes)
            for name, counted in axes.ids.items()
        }
        if axes.paired:
            local = _paired(local, [operands[name] for name in local], sizes["pages"], mesh_axes)
        if "layers" in sizes:
            # A bad layer makes all ids bad, and the same number of them on every device.
            is_layer = (operands["layer"] >= 0) & (operands["layer"] < sizes["layers"])
            local = {name: jnp.where(is_layer, ids, operands[name]) for name, ids in local.items()}
        return tuple(
            _sum(result, mesh_axes) if i in axes.summed else result
            for i, result in enumerate(op(*(operands | local).values()))
        )

    return run


def _count(sizes: Mapping[str, int], names: Sequence[str]) -> int:
    return math.prod(sizes[name] for name in names)


def _paired(
    local: Mapping[str, jax.Array],
    ids: Sequence[jax.Array],
    num_local: int,
    mesh_axes: MeshAxes,
) -> dict[str, jax.Array]:
    """Local ids of two operands. A pair not of one device is out of range on every device."""
    first, second = ids
    num_global = num_local * math.prod(jax.lax.axis_size(name) for name in mesh_axes)
    is_padding = (first == -1) | (second == -1)
    is_pair = (first >= 0) & (first < num_global) & (second >= 0) & (second < num_global)
    is_pair &= first // max(num_local, 1) == second // max(num_local, 1)
    is_good = is_padding | is_pair
    return {name: jnp.where(is_good, array, num_local) for name, array in local.items()}


def _sum(rows: jax.Array, mesh_axes: MeshAxes) -> jax.Array:
    """The rows of whichever device has others than zeros, to the last bit: -0.0 stays -0.0.

    As bytes, which add up without a carry, and which every backend can add.
    """
    dtype, width = rows.dtype, _checks.bits(rows.dtype)
    if jnp.issubdtype(dtype, jnp.complexfloating):  # JAX has no bits of these
        return jnp.asarray(jax.lax.psum(rows, mesh_axes), dtype)
    if dtype == jnp.bool:
        return jnp.asarray(jax.lax.psum(rows.astype(jnp.uint8), mesh_axes), dtype)
    words = jax.lax.bitcast_convert_type(rows, jnp.dtype(f"uint{min(width, 8)}"))
    total = jax.lax.psum(words.astype(jnp.uint8), mesh_axes).astype(words.dtype)
    return jax.lax.bitcast_convert_type(total, dtype)
