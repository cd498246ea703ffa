"""Writes the keys and values of new tokens to their pages, in place."""

import functools
from typing import NamedTuple

import jax
from jax.typing import ArrayLike

from pagedkv.ops import _checks, _dispatch, _reference
from pagedkv.ops._axes import OpAxes
from pagedkv.ops._checks import Mode


class KVWrite(NamedTuple):
    """The pools after a write, and how many slots it could not write."""

    key_pages: jax.Array
    value_pages: jax.Array
    num_dropped: jax.Array


def write_kv(
    key_pages: ArrayLike,
    value_pages: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    slot_mapping: ArrayLike,
    *,
    layer: ArrayLike | None = None,
    mode: Mode = "drop",
) -> KVWrite:
    """Writes ``key[i]`` and ``value[i]`` to slot ``slot_mapping[i]`` of both pools.

    A slot is ``page_id * page_size + offset``. Under `jax.jit` with the pools donated this is in
    place, at a cost that does not depend on the size of the pools; so it is with the pools as the
    carry of `jax.lax.scan`. Do not reshape a pool on the way, nor read the old one after: XLA then
    copies it (`pagedkv.testing.assert_in_place` tells). For arrays sharded over a mesh call it
    inside `jax.shard_map`.

    Rows are written in order, so of equal slots the last one wins. This holds on the CPU; other
    platforms use an XLA scatter, where it is not defined which one wins.

    Args:
      key_pages: Any dtype, shape ``[pages, page_size, kv_heads, head_dim]``, or
        ``[layers, pages, page_size, kv_heads, head_dim]`` with ``layer``.
      value_pages: The shape of ``key_pages``, but for ``head_dim``.
      key: The dtype of ``key_pages``, shape ``[tokens, kv_heads, head_dim]``.
      value: The dtype of ``value_pages``, shape ``[tokens, kv_heads, head_dim]``.
      slot_mapping: int32, shape ``[tokens]``, each in ``[0, pages * page_size)``, or -1 for
        padding, which is never written nor counted.
      layer: int, or int32 scalar array, in ``[0, layers)``. For pools with a layer axis.
      mode: What becomes of a slot or a layer array that is out of range. "drop" writes nothing
        there and counts it. "raise" fails with `jax.errors.JaxRuntimeError` before the first
        write; the donated pools are lost then, so it is for debugging. Only the CPU can raise,
        other platforms drop.

    Returns:
      The new pools, and ``num_dropped``: int32, shape ``[]``, how many slots were out of range,
      padding aside. All of them, if the layer is.

    Raises:
      TypeError: If an operand is no array, the ids are not int32, or rows and pool differ in dtype.
      ValueError: If shapes do not fit together, a row is not a whole number of bytes, or ``mode``
        is unknown; also when differentiated.
      IndexError: If ``layer`` is a Python int out of range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from pagedkv.ops import write_kv
      >>> pool = jnp.zeros([4, 2, 1, 2])
      >>> row = jnp.ones([1, 1, 2])
      >>> write = jax.jit(write_kv, donate_argnums=(0, 1))
      >>> keys, values, num_dropped = write(pool, pool + 0, row, 2 * row, jnp.int32([5]))
      >>> keys[2, 1, 0].tolist(), values[2, 1, 0].tolist(), int(num_dropped)
      ([1.0, 1.0], [2.0, 2.0], 0)
    """
    operation = "write_kv"
    pools = {"key_pages": key_pages, "value_pages": value_pages}
    rows = {"key": key, "value": value}
    layered = layer is not None
    _checks.check_mode(operation, mode)
    slots = _checks.as_array(operation, "slot_mapping", slot_mapping)
    _checks.check_int32(operation, "slot_mapping", slots)
    if len(slots.shape) != 1:
        raise ValueError(
            f"[{operation}] slot_mapping must have shape [tokens], got {list(slots.shape)}"
        )
    for (pages_name, pool), (rows_name, new) in zip(pools.items(), rows.items(), strict=True):
        pages = _checks.as_array(operation, pages_name, pool)
        _checks.check_pool(operation, pages_name, pages, layered=layered)
        _checks.check_rows(
            operation,
            rows_name,
            _checks.as_array(operation, rows_name, new),
            pages_name,
            pages,
            slots,
        )
    pages = _checks.as_array(operation, "key_pages", key_pages)
    _checks.check_same_pages(
        operation, pages, _checks.as_array(operation, "value_pages", value_pages)
    )
    layer_id = _checks.as_layer(operation, layer, pages)
    return KVWrite(
        *_write(
            key_pages, value_pages, key, value, slot_mapping, layer_id, layered=layered, mode=mode
        )
    )


@functools.partial(jax.jit, static_argnames=("layered", "mode"), inline=True)
def _write(*operands: jax.Array, layered: bool, mode: str) -> tuple[jax.Array, ...]:
    return _dispatch.call(
        "pagedkv.write_kv.v1",
        _reference.write_kv,
        *operands,
        axes=_axes(layered),
        # The pools are aliased with the results, so they need the full batch; rows are small.
        vmap_method="broadcast_all",
        aliases={0: 0, 1: 1},
        attributes={"layered": layered},
        mode=mode,
    )


def _axes(layered: bool) -> OpAxes:
    pool = (*["layers"] * layered, "pages", "page_size", "kv_heads", "head_dim")
    return OpAxes(
        "write_kv",
        operands={
            "key_pages": pool,
            "value_pages": pool,
            "key": ("tokens", "kv_heads", "head_dim"),
            "value": ("tokens", "kv_heads", "head_dim"),
            "slot_mapping": ("tokens",),
            "layer": (),
        },
        results=(pool, pool, ()),
        ids={"slot_mapping": ("pages", "page_size")},
    )
