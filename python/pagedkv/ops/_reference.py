"""The ops in pure jnp: what the handlers must equal, and the code for platforms without one.

All take ``layer`` as an int32 scalar and pools with or without a layer axis, as ``layered`` says.
"""

import jax
import jax.numpy as jnp

_MAX_INT32 = 2**31 - 1


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


def paged_attention(
    query: jax.Array,
    key_pages: jax.Array,
    value_pages: jax.Array,
    page_table: jax.Array,
    query_starts: jax.Array,
    context_lens: jax.Array,
    layer: jax.Array,
    sliding_window: jax.Array,
    *,
    layered: bool,
    scale: float,
) -> tuple[jax.Array, jax.Array]:
    """Gathers the whole context anew for every query token: an oracle, not a kernel."""
    num_tokens, heads, _ = query.shape
    num_pages, page_size, kv_heads = key_pages.shape[layered : layered + 3]
    num_requests, width = page_table.shape
    exists = _in_range(page_table, num_pages) & _in_range(layer, _num_layers(key_pages, layered))

    starts, ends = query_starts[:-1], query_starts[1:]
    valid = (
        (starts >= jnp.maximum(jax.lax.cummax(starts), 0))
        & (ends >= starts)
        & (ends <= num_tokens)
        & (context_lens >= ends - starts)
        & (context_lens <= min(width * page_size, _MAX_INT32))
        & (sliding_window >= 1)
    )
    first_of_page = jnp.arange(width) * page_size
    first_position = (context_lens - (ends - starts))[:, None]  # of the queries
    is_read = (first_of_page < context_lens[:, None]) & (
        first_position - (first_of_page + page_size - 1) < sliding_window
    )
    missing = is_read & ~exists & (valid & (ends > starts))[:, None]
    num_dropped = jnp.sum(~valid, dtype=jnp.int32) + jnp.sum(missing, dtype=jnp.int32)

    output_shape = (num_tokens, heads, value_pages.shape[-1])
    if 0 in (num_tokens, num_requests, width, key_pages.size, value_pages.size):
        return jnp.zeros(output_shape, query.dtype), num_dropped

    token = jnp.arange(num_tokens)[:, None]
    owns = valid & (starts <= token) & (token < ends)  # [tokens, requests]
    owner = jnp.argmax(owns, axis=1)
    position = (context_lens - ends)[owner] + token[:, 0]
    age = position[:, None] - jnp.arange(width * page_size)
    visible = (
        jnp.any(owns, axis=1)[:, None]
        & jnp.repeat(exists[owner], page_size, axis=1)
        & (age >= 0)
        & (age < sliding_window)
    )

    def context(pages: jax.Array) -> jax.Array:
        """``[tokens, width * page_size, kv_heads, dim]``, zeros where a token sees nothing."""
        index = (layer, page_table[owner]) if layered else (page_table[owner],)
        rows = pages.at[index].get(mode="clip").astype(jnp.float32)
        rows = rows.reshape(num_tokens, width * page_size, *rows.shape[-2:])
        return jnp.where(visible[..., None, None], rows, 0)

    grouped = query.astype(jnp.float32).reshape(num_tokens, kv_heads, -1, query.shape[-1])
    scores = jnp.einsum("tkgd,tskd->tkgs", grouped * scale, context(key_pages))
    weights = jax.nn.softmax(scores, axis=-1, where=visible[:, None, None])
    # Where nothing is visible, softmax divides 0 by 0.
    weights = jnp.where(visible[:, None, None], weights, 0)
    attended = jnp.einsum("tkgs,tskd->tkgd", weights, context(value_pages))
    return attended.reshape(output_shape).astype(query.dtype), num_dropped


def _num_layers(pages: jax.Array, layered: bool) -> int:
    return pages.shape[0] if layered else 1


def _in_range(ids: jax.Array, size: int) -> jax.Array:
    return (ids >= 0) & (ids < size)


def _num_dropped(ids: jax.Array, valid: jax.Array) -> jax.Array:
    return jnp.sum(~valid & (ids != -1), dtype=jnp.int32)
