"""The ops in pure jnp: what the handlers must equal, and the code for platforms without one.

Both take ``layer`` as an int32 scalar and pools with or without a layer axis, as ``layered`` says.
"""

import jax
import jax.numpy as jnp


def write_kv(
    key_pages: jax.Array,
    value_pages: jax.Array,
    key: jax.Array,
    value: jax.Array,
    slot_mapping: jax.Array,
    layer: jax.Array,
    *,
    layered: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    num_pages, page_size = key_pages.shape[layered : layered + 2]
    num_slots = num_pages * page_size
    valid = _in_range(slot_mapping, num_slots) & _in_range(layer, _num_layers(key_pages, layered))
    # JAX would take a negative index as one from the end, so every bad slot goes past the last
    # page, where mode="drop" drops it.
    page = jnp.where(valid, slot_mapping // max(page_size, 1), num_pages)
    offset = jnp.where(valid, slot_mapping % max(page_size, 1), 0)
    index = (layer, page, offset) if layered else (page, offset)
    return (
        key_pages.at[index].set(key, mode="drop"),
        value_pages.at[index].set(value, mode="drop"),
        _num_dropped(slot_mapping, valid),
    )


def gather_pages(
    pages: jax.Array, page_ids: jax.Array, layer: jax.Array, *, layered: bool
) -> tuple[jax.Array, jax.Array]:
    num_pages = pages.shape[layered]
    valid = _in_range(page_ids, num_pages) & _in_range(layer, _num_layers(pages, layered))
    rows_shape = page_ids.shape + pages.shape[layered + 1 :]
    if pages.size == 0:
        rows = jnp.zeros(rows_shape, pages.dtype)
    else:
        index = (layer, page_ids) if layered else (page_ids,)
        rows = pages.at[index].get(mode="clip")
    mask = valid.reshape(valid.shape + (1,) * (len(rows_shape) - valid.ndim))
    return jnp.where(mask, rows, jnp.zeros((), pages.dtype)), _num_dropped(page_ids, valid)


def _num_layers(pages: jax.Array, layered: bool) -> int:
    return pages.shape[0] if layered else 1


def _in_range(ids: jax.Array, size: int) -> jax.Array:
    return (ids >= 0) & (ids < size)


def _num_dropped(ids: jax.Array, valid: jax.Array) -> jax.Array:
    return jnp.sum(~valid & (ids != -1), dtype=jnp.int32)
