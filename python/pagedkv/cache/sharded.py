"""Writes rows to page tensors that may be cut over a mesh, in place on each device."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from pagedkv.cache.axes import axis_names, padded
from pagedkv.ops._checks import Mode


@functools.partial(jax.jit, static_argnames=("sharding", "mode"), inline=True)
def write_rows(
    key_pages: jax.Array,
    value_pages: jax.Array,
    key: jax.Array,
    value: jax.Array,
    slots: jax.Array,
    *,
    sharding: NamedSharding | None,
    mode: Mode,
) -> tuple[jax.Array, jax.Array]:
    """Writes row ``i`` to slot ``slots[i]``, on the devices that have it.

    Each device writes its part, with no communication about pages. Inside a `jax.shard_map` of the
    caller, the axes that it maps are its own business: there, the arrays are the local ones.

    Args:
      key_pages: Shape ``[kv_heads, pages, page_size, head_dim]``.
      value_pages: The same shape.
      key: Of the dtype of the pages, shape ``[tokens, kv_heads, head_dim]``.
      value: The same shape.
      slots: int32, shape ``[tokens]``.
      sharding: Of both page tensors; None: they are not cut.
      mode: As in `pagedkv.ops.write_kv`.
    """
    names = _axes_to_map(sharding)
    if sharding is None or not names:
        return _write(key_pages, value_pages, key, value, slots, mode=mode)
    heads, pages, _, dim = (
        tuple(name for name in axis_names(axes) if name in names) or None
        for axes in padded(sharding.spec)
    )
    pages_spec = PartitionSpec(heads, pages, None, dim)
    rows_spec = PartitionSpec(None, heads, dim)

    def write_shard(
        key_pages: jax.Array, value_pages: jax.Array, *rows: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        key, value, slots = rows
        num_slots = key_pages.shape[1] * key_pages.shape[2]
        if pages:
            slots = _local_slots(slots, num_slots, pages)
        return _write(key_pages, value_pages, key, value, slots, mode=mode)

    outer = jax.sharding.get_abstract_mesh()
    key, value, slots = (
        _reshard(rows, sharding, spec)
        for rows, spec in ((key, rows_spec), (value, rows_spec), (slots, PartitionSpec()))
    )
    mapped = jax.shard_map(
        write_shard,
        mesh=None if AxisType.Manual in outer.axis_types else sharding.mesh,
        in_specs=(pages_spec, pages_spec, rows_spec, rows_spec, PartitionSpec()),
        out_specs=(pages_spec, pages_spec),
        axis_names=set(names),
    )
    result: tuple[jax.Array, jax.Array] = mapped(key_pages, value_pages, key, value, slots)
    return result


def _axes_to_map(sharding: NamedSharding | None) -> tuple[str, ...]:
    """The mesh axes that pages are cut over, those aside that the caller has mapped already."""
    if sharding is None:
        return ()
    outer = jax.sharding.get_abstract_mesh()
    mapped = {
        name
        for name, kind in zip(outer.axis_names, outer.axis_types, strict=True)
        if kind == AxisType.Manual
    }
    return tuple(
        name
        for axes in padded(sharding.spec)
        for name in axis_names(axes)
        if name not in mapped and sharding.mesh.shape[name] > 1
    )


def _local_slots(slots: jax.Array, num_local: int, names: tuple[str, ...]) -> jax.Array:
    """Global slots as those of this shard: -1 for those of others, out of range if they were."""
    num_shards = jax.lax.axis_size(names)
    local = slots - jax.lax.axis_index(names) * num_local
    is_global = (slots >= 0) & (slots < num_shards * num_local)
    is_local = is_global & (local >= 0) & (local < num_local)
    return jnp.where(is_local, local, jnp.where(is_global, -1, slots))


def _reshard(rows: jax.Array, sharding: NamedSharding, spec: PartitionSpec) -> jax.Array:
    """Where types say how arrays are cut, `jax.shard_map` wants its own; elsewhere XLA sees to it."""
    if AxisType.Explicit not in sharding.mesh.axis_types:
        return rows
    resharded: jax.Array = jax.sharding.reshard(rows, NamedSharding(sharding.mesh, spec))
    return resharded


def _write(
    key_pages: jax.Array,
    value_pages: jax.Array,
    key: jax.Array,
    value: jax.Array,
    slots: jax.Array,
    *,
    mode: Mode,
) -> tuple[jax.Array, jax.Array]:
    num_pages, page_size = key_pages.shape[1:3]
    valid = (slots >= 0) & (slots < num_pages * page_size)
    page = jnp.where(valid, slots // page_size, num_pages)
    index = (slice(None), page, slots % page_size)
    return (
        key_pages.at[index].set(key.transpose(1, 0, 2), mode="drop"),
        value_pages.at[index].set(value.transpose(1, 0, 2), mode="drop"),
    )
