"""paged_attention by gathering the whole context."""

import jax
import jax.numpy as jnp

from pagedkv.layouts import KVLayout
from pagedkv.ops._reference._ids import in_range, num_layers
from pagedkv.ops._reference._quantized import read_scales
from pagedkv.ops._reference._write_kv import row_index

_MAX_INT32 = 2**31 - 1


def paged_attention(
    query: jax.Array,
    page_table: jax.Array,
    query_starts: jax.Array,
    context_lens: jax.Array,
    layer: jax.Array,
    sliding_window: jax.Array,
    attention_chunk_size: jax.Array,
    num_sink_tokens: jax.Array,
    sinks: jax.Array,
    *pools_and_scales: jax.Array,
    layout: KVLayout,
    layered: bool,
    group_size: int,
    value_dim: int,
    scale: float,
    soft_cap: float,
) -> tuple[jax.Array, jax.Array]:
    """Gathers the whole context anew for every query token: an oracle, not a kernel."""
    num_pools = 1 if layout.is_shared else 2
    pools, scales = pools_and_scales[:num_pools], pools_and_scales[num_pools:]
    num_tokens, heads, head_dim = query.shape
    sizes = layout.sizes(pools[0].shape[layered:])
    num_pages, page_size = sizes["pages"], sizes["page_size"]
    num_requests, width = page_table.shape
    exists = in_range(page_table, num_pages) & in_range(layer, num_layers(pools[0], layered))

    starts, ends = query_starts[:-1], query_starts[1:]
    valid = (
        (starts >= jnp.maximum(jax.lax.cummax(starts), 0))
        & (ends >= starts)
        & (ends <= num_tokens)
        & (context_lens >= ends - starts)
        & (context_lens <= min(width * page_size, _MAX_INT32))
        & (sliding_window >= 1)
        & (attention_chunk_size >= 1)
        & (num_sink_tokens >= 0)
    )
    chunk = jnp.maximum(attention_chunk_size, 1)

    def first_seen(position: jax.Array) -> jax.Array:
        # Without a negative number: the window may be the largest of int32.
        beyond = jnp.where(position >= sliding_window, position - sliding_window + 1, 0)
        return jnp.maximum(beyond, position // chunk * chunk)

    first_of_page = jnp.arange(width) * page_size
    first_position = (context_lens - (ends - starts))[:, None]  # of the queries
    is_read = (first_of_page < context_lens[:, None]) & (
        (first_of_page + page_size > first_seen(first_position)) | (first_of_page < num_sink_tokens)
    )
    missing = is_read & ~exists & (valid & (ends > starts))[:, None]
    num_dropped = jnp.sum(~valid, dtype=jnp.int32) + jnp.sum(missing, dtype=jnp.int32)

    output_shape = (num_tokens, heads, value_dim)
    if 0 in (num_requests, width, *output_shape, *(pool.size for pool in pools)):
        return jnp.zeros(output_shape, query.dtype), num_dropped

    token = jnp.arange(num_tokens)[:, None]
    owns = valid & (starts <= token) & (token < ends)  # [tokens, requests]
    owner = jnp.argmax(owns, axis=1)
    position = ((context_lens - ends)[owner] + token[:, 0])[:, None]
    seen = jnp.arange(width * page_size)
    visible = (
        jnp.any(owns, axis=1)[:, None]
        & jnp.repeat(exists[owner], page_size, axis=1)
        & (seen <= position)
        & ((seen >= first_seen(position)) | (seen < num_sink_tokens))
    )

    def context(stream: int, dim: int) -> jax.Array:
        """``[tokens, width * page_size, kv_heads, dim]``, zeros where a token sees nothing."""
        i = min(stream, num_pools - 1)
        rows = _rows(
            pools[i],
            scales[i] if scales else None,
            layer,
            page_table,
            0 if layout.is_latent else stream,
            (heads // group_size, dim),
            layout=layout,
            layered=layered,
        )
        rows = rows.reshape(num_requests, width * page_size, *rows.shape[1:])[owner]
        return jnp.where(visible[..., None, None], rows, 0)

    grouped = query.astype(jnp.float32).reshape(num_tokens, -1, group_size, head_dim)
    scores = jnp.einsum("tkgd,tskd->tkgs", grouped * scale, context(0, head_dim))
    if soft_cap != 0:
        scores = soft_cap * jnp.tanh(scores / soft_cap)
    where = visible[:, None, None]
    if sinks.size:
        sink = jnp.broadcast_to(sinks.reshape(-1, group_size, 1), (*scores.shape[:-1], 1))
        scores = jnp.concatenate([scores, sink], axis=-1)
        sees_any = jnp.any(where, axis=-1, keepdims=True)
        where = jnp.concatenate([where, sees_any], axis=-1)
    weights = jax.nn.softmax(scores, axis=-1, where=where)
    # Where nothing is visible, softmax divides 0 by 0.
    weights = jnp.where(where, weights, 0)[..., : seen.size]
    attended = jnp.einsum("tkgs,tskd->tkgd", weights, context(1, value_dim))
    return attended.reshape(output_shape).astype(query.dtype), num_dropped


def _rows(
    pool: jax.Array,
    scales: jax.Array | None,
    layer: jax.Array,
    page_table: jax.Array,
    stream: int,
    row: tuple[int, int],
    *,
    layout: KVLayout,
    layered: bool,
) -> jax.Array:
    """Numbers of all tokens of the table's pages, float32 ``[ids * page_size, kv_heads, dim]``."""
    heads, dim = row
    shape = pool.shape[layered:]
    page_size = layout.sizes(shape)["page_size"]
    page = jnp.clip(jnp.repeat(page_table.ravel(), page_size), 0, layout.sizes(shape)["pages"] - 1)
    offset = jnp.tile(jnp.arange(page_size, dtype=jnp.int32), page_table.size)
    rows_shape = (page.size, dim) if layout.is_latent else (page.size, heads, dim)
    index = row_index(page, offset, stream, rows_shape, shape, layout)
    leading = (layer,) if layered else ()
    rows = pool.at[(*leading, *index)].get(mode="clip").astype(jnp.float32)
    rows = rows.reshape(page.size, heads, dim)
    if scales is None:
        return rows
    factors = read_scales(page * page_size + offset, layer, stream, heads, pool, scales, layout)
    return rows * factors[..., None]
