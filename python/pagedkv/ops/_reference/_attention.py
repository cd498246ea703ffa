"""paged_attention by gathering the whole context."""

import jax
import jax.numpy as jnp

from pagedkv.ops._reference._ids import in_range, num_layers

_MAX_INT32 = 2**31 - 1


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
    exists = in_range(page_table, num_pages) & in_range(layer, num_layers(key_pages, layered))

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
