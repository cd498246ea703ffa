"""Writes the keys and values of new tokens to their pages, in place."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from pagedkv.layouts import KVLayout
from pagedkv.ops import _checks, _pallas, _quantized, _reference
from pagedkv.ops._axes import OpAxes, pool_axes, scale_axes
from pagedkv.ops._checks import Mode
from pagedkv.ops._dispatch import COUNT, Op
from pagedkv.ops._quantized import QuantizedPages


class KVWrite(NamedTuple):
    """The pools after a write, and how many slots it could not write.

    ``value_pages`` is None in a layout whose ``key_pages`` hold the values too.
    """

    key_pages: Any
    value_pages: Any
    num_dropped: jax.Array


def write_kv(
    key_pages: ArrayLike | QuantizedPages,
    value_pages: ArrayLike | QuantizedPages | None,
    key: ArrayLike,
    value: ArrayLike | None,
    slot_mapping: ArrayLike,
    *,
    layer: ArrayLike | None = None,
    layout: KVLayout | str = KVLayout.NHD,
    mode: Mode = "drop",
) -> KVWrite:
    """Writes ``key[i]`` and ``value[i]`` to slot ``slot_mapping[i]`` of both pools.

    A slot is ``page_id * page_size + offset``. Under `jax.jit` with the pools donated this is in
    place, at a cost that does not depend on the size of the pools; so it is with the pools as the
    carry of `jax.lax.scan`. Do not reshape a pool on the way, nor read the old one after: XLA then
    copies it (`pagedkv.testing.assert_in_place` tells).

    On a mesh the pools may be sharded over pages and kv heads, alike. Each device writes the rows of
    its own part, and slots are those of the whole pool; inside `jax.shard_map`, of the part
    (`local_ids` converts).

    Of equal slots the last row wins: on the CPU, on CUDA, and by the kernels for TPUs. Where none of
    them serves, it is an XLA scatter, and not defined which one wins (docs/platforms.md).

    Args:
      key_pages: Any dtype, shape ``[pages, page_size, kv_heads, head_dim]`` or what ``layout``
        says, and a layer axis before it with ``layer``. Or `QuantizedPages` of such, to quantise
        the rows on their way.
      value_pages: The shape of ``key_pages``, but for ``head_dim``. None in a layout whose
        ``key_pages`` hold the values too.
      key: The dtype of ``key_pages``, or float32, bfloat16 or float16 to be quantised; shape
        ``[tokens, kv_heads, head_dim]``; in a latent layout ``[tokens, head_dim]``. In a layout
        that pads, heads and elements may be fewer than the pool has, which are written as zeros.
      value: The dtype of ``value_pages``, shape ``[tokens, kv_heads, head_dim]``. None in a latent
        layout.
      slot_mapping: int32, shape ``[tokens]``, each in ``[0, pages * page_size)``, or -1 for
        padding, which is never written nor counted.
      layer: int, or int32 scalar array, in ``[0, layers)``. For pools with a layer axis.
      layout: How rows lie in the pools: a `pagedkv.KVLayout`, or its name.
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
    layout = _checks.as_layout(operation, layout)
    layered = layer is not None
    _checks.check_mode(operation, mode)
    slots = _checks.as_array(operation, "slot_mapping", slot_mapping)
    _checks.check_int32(operation, "slot_mapping", slots)
    if len(slots.shape) != 1:
        raise ValueError(
            f"[{operation}] slot_mapping must have shape [tokens], got {list(slots.shape)}"
        )
    pools = {"key_pages": key_pages, "value_pages": value_pages}
    rows = {"key": key, "value": value}
    if layout.is_shared:
        _checks.check_absent(operation, "value_pages", pools.pop("value_pages"), layout)
    if layout.is_latent:
        _checks.check_absent(operation, "value", rows.pop("value"), layout)
    is_quantized = isinstance(key_pages, _quantized.QuantizedPages)
    for pages_name, pool in pools.items():
        if isinstance(pool, _quantized.QuantizedPages) != is_quantized:
            raise TypeError(
                f"[{operation}] key_pages and value_pages must both be QuantizedPages, or neither"
            )
        pages = _checks.as_array(operation, pages_name, _quantized.split(pool)[0])
        _checks.check_pool(operation, pages_name, pages, layered=layered, layout=layout)
        if isinstance(pool, _quantized.QuantizedPages):
            _quantized.granularity_of(operation, pages_name, pool, layout, layered=layered)
    for i, (rows_name, new) in enumerate(rows.items()):
        pages_name = list(pools)[min(i, len(pools) - 1)]
        _checks.check_rows(
            operation,
            rows_name,
            _checks.as_array(operation, rows_name, new),
            pages_name,
            _quantized.split(pools[pages_name])[0],
            slots,
            layered=layered,
            layout=layout,
            dtypes=_quantized.FLOATS if is_quantized else None,
        )
    pages = _quantized.split(key_pages)[0]
    if not layout.is_shared:
        _checks.check_same_pages(operation, pages, _quantized.split(value_pages)[0])
    elif not layout.is_latent:
        _checks.check_same_rows(
            operation,
            _checks.as_array(operation, "key", key),
            _checks.as_array(operation, "value", value),
        )
    layer_id = _checks.as_layer(operation, layer, pages)
    arrays, scales = zip(*map(_quantized.split, pools.values()), strict=True)
    # Each device would round its own heads up, and so put them elsewhere.
    num_heads = 1 if layout.is_latent else np.shape(key)[1]
    pads_heads = layout.room(pages.shape[layered:])[0] != num_heads
    scale_rank = len(scales[0].shape) if is_quantized else None
    num_dropped, *written = _op(layout, layered, scale_rank, pads_heads, mode)(
        slot_mapping, layer_id, *arrays, *(scales if is_quantized else ()), *rows.values()
    )
    num_pools = len(pools)
    new_scales: list[Any] = written[num_pools:] or [None] * num_pools
    pools_after = [
        _quantized.join(*pair) for pair in zip(written[:num_pools], new_scales, strict=True)
    ]
    return KVWrite(pools_after[0], pools_after[1] if num_pools > 1 else None, num_dropped)


@functools.cache
def _op(layout: KVLayout, layered: bool, scale_rank: int | None, pads_heads: bool, mode: str) -> Op:
    quantized = scale_rank is not None
    num_arrays = (1 if layout.is_shared else 2) * (1 + quantized)
    reference = functools.partial(
        _reference.write_kv_quantized if quantized else _reference.write_kv,
        layout=layout,
        layered=layered,
    )
    return Op(
        "pagedkv.write_kv_quantized.v1" if quantized else "pagedkv.write_kv.v2",
        reference,
        lambda *operands: (COUNT, *operands[2 : 2 + num_arrays]),
        axes=_axes(layout, layered, scale_rank, pads_heads),
        # The pools are aliased with the results, so they need the full batch; rows are small.
        vmap_method="broadcast_all",
        aliases={2 + i: 1 + i for i in range(num_arrays)},
        attributes={"layout": layout.name, "layered": layered, "mode": mode},
        kernels={} if quantized else _pallas.on_tpu(reference),
    )


def _axes(layout: KVLayout, layered: bool, scale_rank: int | None, pads_heads: bool) -> OpAxes:
    pool = pool_axes(layout, layered=layered)
    row = ("tokens", "head_dim") if layout.is_latent else ("tokens", "kv_heads", "head_dim")
    sides = ("key",) if layout.is_shared else ("key", "value")
    pools = {f"{side}_pages": pool for side in sides}
    if scale_rank is not None:
        scales = scale_axes(layout, layered=layered, rank=scale_rank)
        pools |= {f"{side}_scales": scales for side in sides}
    if pads_heads:
        pools = {
            name: tuple("padded_kv_heads" if axis == "kv_heads" else axis for axis in axes)
            for name, axes in pools.items()
        }
    return OpAxes(
        "write_kv",
        operands={
            "slot_mapping": ("tokens",),
            "layer": (),
            **pools,
            **dict.fromkeys(("key",) if layout.is_latent else ("key", "value"), row),
        },
        results=((), *pools.values()),
        ids={
            "slot_mapping": tuple(name for name in pool if name.startswith(("pages", "page_size")))
        },
    )
