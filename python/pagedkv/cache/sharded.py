"""Writes rows to page tensors that may be cut over a mesh, in place on each device."""

import functools

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from pagedkv.cache.axes import axis_names, padded
from pagedkv.ops import local_ids, write_kv
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

    `write_kv` finds out by itself how pools are cut. This does not ask it to, for two reasons: pages
    may be cut along ``head_dim`` here, and a program that says how they are cut compiles sooner.
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
    write = functools.partial(write_kv, layout="HEADS_FIRST", mode=mode)
    names = _axes_to_map(sharding)
    if sharding is None or not names:
        return write(key_pages, value_pages, key, value, slots)[:2]
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
        if pages:
            slots = local_ids(slots, key_pages.shape[1] * key_pages.shape[2], pages)
        return write(key_pages, value_pages, key, value, slots)[:2]

    in_specs = (pages_spec, pages_spec, rows_spec, rows_spec, PartitionSpec())
    operands = (key_pages, value_pages, key, value, slots)
    outer = jax.sharding.get_abstract_mesh()
    mesh = outer if AxisType.Manual in outer.axis_types else sharding.mesh
    # Where types say how arrays are cut, shard_map takes no others. Elsewhere XLA sees to it.
    if AxisType.Explicit in sharding.mesh.axis_types:
        shardings = [NamedSharding(mesh, spec) for spec in in_specs]
        operands = tuple(map(jax.sharding.reshard, operands, shardings))
    mapped = jax.shard_map(
        write_shard,
        mesh=mesh,
        in_specs=in_specs,
        out_specs=(pages_spec, pages_spec),
        axis_names=set(names),
    )
    result: tuple[jax.Array, jax.Array] = mapped(*operands)
    return result


def _axes_to_map(sharding: NamedSharding | None) -> tuple[str, ...]:
    """The axes of the mesh that the caller has not mapped; none where there is nothing to map."""
    if sharding is None:
        return ()
    mesh = sharding.mesh
    if mesh.size == 1 and AxisType.Explicit not in mesh.axis_types:
        return ()
    outer = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(outer.axis_names, outer.axis_types, strict=True))
    return tuple(name for name in mesh.axis_names if kinds.get(name) != AxisType.Manual)
