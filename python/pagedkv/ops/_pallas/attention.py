"""paged_attention by the kernels that JAX has for TPUs and GPUs, on pools as they are.

| platform | layout | kernel of `jax.experimental.pallas.ops` | for |
|---|---|---|---|
| tpu | FUSED, FUSED_PACKED | `tpu.ragged_paged_attention` | any batch |
| tpu | HEADS_FIRST, no layer axis | `tpu.paged_attention` | as many tokens as requests |
| gpu | HEADS_FIRST, no layer axis | `gpu.paged_attention` | as many tokens as requests |

The kernels trust what they are given: they follow any page id. So ids, lengths and starts are put in
range before, and what was not is masked after. A layer of a stacked pool is not cut out, which would
copy it: its pages are those of the flat pool ``[layers * pages, ...]``, further on.
"""

import functools
import importlib.util
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pagedkv.layouts import LANES, KVLayout
from pagedkv.ops._checks import HasShape
from pagedkv.ops._pallas._tiles import SUBLANES, packing
from pagedkv.ops._reference._ids import in_range, num_layers

_RAGGED = (KVLayout.FUSED, KVLayout.FUSED_PACKED)
_DTYPES = ("float32", "bfloat16")


def supports(
    platform: str,
    query: HasShape,
    key_pages: HasShape,
    value_pages: HasShape | None,
    page_table: HasShape,
    *,
    layered: bool,
    layout: KVLayout,
    window: int | None = None,
    soft_cap: float | None = None,
) -> bool:
    """Whether `paged_attention` has a kernel for such operands; else the reference is to be used.

    Args:
      platform: "tpu" or "gpu".
      query: Shape ``[tokens, heads, head_dim]``.
      key_pages: Of ``layout``, behind a layer axis if ``layered``.
      value_pages: Alike; None in a layout whose keys and values share a pool.
      page_table: Shape ``[requests, width]``.
      layered: Whether the pools have layers.
      layout: Of the pools.
      window: Tokens that each sees, known now; None for all.
      soft_cap: Bound of the scores; None for none.
    """
    sizes = (query, key_pages, page_table, *([] if value_pages is None else [value_pages]))
    if any(0 in array.shape for array in sizes) or (soft_cap is not None and soft_cap <= 0):
        return False
    if key_pages.dtype not in _DTYPES or query.dtype != key_pages.dtype:
        return False
    kv_heads, head_dim = layout.room(key_pages.shape[layered:])
    if query.shape[2] != head_dim or query.shape[1] % kv_heads != 0:
        return False
    if platform == "tpu" and layout in _RAGGED:
        return head_dim == LANES and _serves_heads(query.shape[1], kv_heads, key_pages.dtype)
    if layout is not KVLayout.HEADS_FIRST or layered or window is not None:
        return False
    if value_pages is None or value_pages.shape != key_pages.shape:
        return False
    is_decode, page_size = query.shape[0] <= page_table.shape[0], key_pages.shape[2]
    if platform == "tpu":
        rows = SUBLANES * packing(key_pages.dtype)
        return is_decode and head_dim % LANES == 0 and page_size % rows == 0
    # Triton's arrays have sizes that are powers of 2, and its products at least 16.
    fits = all(size >= 16 and size & (size - 1) == 0 for size in (page_size, head_dim))
    return platform == "gpu" and is_decode and fits and _has_gpu_kernel()


_GPU = "jax.experimental.pallas.ops.gpu.paged_attention"  # jax 0.12 announces its end


@functools.cache
def _has_gpu_kernel() -> bool:
    return importlib.util.find_spec(_GPU) is not None


def _serves_heads(heads: int, kv_heads: int, dtype: Any) -> bool:
    """What `ragged_paged_attention` asks of the numbers of heads, which it takes a tile at a time."""
    in_tile = SUBLANES * packing(dtype)
    if not _fills_tiles(2 * kv_heads, dtype):
        return False
    at_once = heads
    if 2 * kv_heads % in_tile == 0:
        at_once = in_tile // 2 * (heads // kv_heads)
    return at_once == heads or at_once % SUBLANES == 0 or not _fills_tiles(at_once, dtype)


def _fills_tiles(heads: int, dtype: Any) -> bool:
    words, rest = divmod(heads, packing(dtype))
    return rest == 0 and (words in (1, 2, 4) or words % SUBLANES == 0)


def paged_attention(
    platform: str,
    query: jax.Array,
    key_pages: jax.Array,
    value_pages: jax.Array | None,
    page_table: jax.Array,
    query_starts: jax.Array,
    context_lens: jax.Array,
    layer: jax.Array,
    *,
    layered: bool,
    layout: KVLayout,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Takes and returns what the reference does, for what `supports` says.

    One thing differs: a request with a page id out of range gives zeros for all of its tokens, since
    the kernels cannot leave a page out. It is counted as by the reference.

    Args:
      platform: "tpu" or "gpu".
      query: float32 or bfloat16, shape ``[tokens, heads, head_dim]``.
      key_pages: The dtype of ``query``.
      value_pages: The dtype and shape of ``key_pages``; None in a layout that has none.
      page_table: int32, shape ``[requests, width]``.
      query_starts: int32, shape ``[requests + 1]``.
      context_lens: int32, shape ``[requests]``.
      layer: int32, shape ``[]``.
      layered: Whether the pools have layers.
      layout: Of the pools.
      scale: Factor of the scores.
      window: Tokens that each sees; None for all.
      soft_cap: Bound of the scores; None for none.
      interpret: Whether to interpret the kernel for GPUs. Those for TPUs run in the simulator inside
        of `jax.experimental.pallas.tpu.force_tpu_interpret_mode`.
    """
    sizes = layout.sizes(key_pages.shape[layered:])
    batch = _check(
        query.shape[0],
        page_table,
        query_starts,
        context_lens,
        in_range(layer, num_layers(key_pages, layered)),
        num_pages=sizes["pages"],
        page_size=sizes["page_size"],
        window=window,
    )
    arguments: dict[str, Any] = {"scale": scale, "soft_cap": soft_cap}
    if layout in _RAGGED:
        first = jnp.clip(layer, 0, num_layers(key_pages, layered) - 1) * sizes["pages"]
        pool = key_pages.reshape(-1, sizes["page_size"], sizes["kv_heads"], sizes["head_dim"])
        batch = batch._replace(page_table=batch.page_table + first)
        output = _ragged_on_tpu(query, pool, batch, window=window, **arguments)
    elif value_pages is None:
        raise ValueError(f"[paged_attention] {layout.name} needs value_pages")
    elif platform == "tpu":
        output = _decode_on_tpu(query, key_pages, value_pages, batch, **arguments)
    else:
        output = _decode_on_gpu(
            query, key_pages, value_pages, batch, interpret=interpret, **arguments
        )
    kept = batch.is_right[batch.owner] & batch.has_owner
    return jnp.where(kept[:, None, None], output, 0).astype(query.dtype), batch.num_dropped


class _Batch(NamedTuple):
    """A batch in which nothing is out of range.

    Attributes:
      page_table: int32 ``[requests, width]``, in range.
      starts: int32 ``[requests + 1]``, non-decreasing, in ``[0, tokens]``.
      context_lens: int32 ``[requests]``, in ``[1, width * page_size]``.
      is_right: bool ``[requests]``: what was in range before.
      owner: int32 ``[tokens]``: the request of each.
      has_owner: bool ``[tokens]``.
      num_dropped: int32 ``[]``, as of the op.
    """

    page_table: jax.Array
    starts: jax.Array
    context_lens: jax.Array
    is_right: jax.Array
    owner: jax.Array
    has_owner: jax.Array
    num_dropped: jax.Array

    def of_tokens(self) -> tuple[jax.Array, jax.Array]:
        """Of each token, as a request of its own: the pages, and how many tokens it sees."""
        tokens = jnp.arange(self.owner.shape[0])
        lens = (self.context_lens - self.starts[1:])[self.owner] + tokens + 1
        return self.page_table[self.owner], jnp.where(self.has_owner, jnp.maximum(lens, 1), 1)


def _check(
    num_tokens: int,
    page_table: jax.Array,
    query_starts: jax.Array,
    context_lens: jax.Array,
    layer_exists: jax.Array,
    *,
    num_pages: int,
    page_size: int,
    window: int | None,
) -> _Batch:
    starts, ends = query_starts[:-1], query_starts[1:]
    capacity = min(page_table.shape[1] * page_size, 2**31 - 1)
    valid = (
        (starts >= jnp.maximum(jax.lax.cummax(starts), 0))
        & (ends >= starts)
        & (ends <= num_tokens)
        & (context_lens >= ends - starts)
        & (context_lens <= capacity)
    )
    first_of_page = jnp.arange(page_table.shape[1]) * page_size
    is_read = (first_of_page < context_lens[:, None]) & (valid & (ends > starts))[:, None]
    if window is not None:
        first_position = (context_lens - (ends - starts))[:, None]
        is_read &= first_position - (first_of_page + page_size - 1) < window
    exists = in_range(page_table, num_pages)
    missing = is_read & ~(exists & layer_exists)
    num_dropped = jnp.sum(~valid, dtype=jnp.int32) + jnp.sum(missing, dtype=jnp.int32)

    in_order = jnp.clip(jax.lax.cummax(query_starts), 0, num_tokens)
    lens = jnp.where(valid, context_lens, in_order[1:] - in_order[:-1])
    token = jnp.arange(num_tokens)[:, None]
    owns = valid & (starts <= token) & (token < ends)
    return _Batch(
        page_table=jnp.where(exists, page_table, 0),
        starts=in_order,
        context_lens=jnp.clip(lens, 1, capacity),
        is_right=valid & ~jnp.any(missing, axis=1),
        owner=jnp.argmax(owns, axis=1).astype(jnp.int32),
        has_owner=jnp.any(owns, axis=1),
        num_dropped=num_dropped,
    )


def _ragged_on_tpu(
    query: jax.Array,
    pool: jax.Array,
    batch: _Batch,
    *,
    scale: float,
    window: int | None,
    soft_cap: float | None,
) -> jax.Array:
    from jax.experimental.pallas.ops.tpu.ragged_paged_attention import ragged_paged_attention

    # The kernel waits for pages of the last request, so one must have a token.
    one_token = jnp.minimum(jnp.arange(batch.starts.shape[0]), 1)
    starts = jnp.where(batch.starts[-1] == batch.starts[0], one_token, batch.starts)
    has_tokens = starts[1:] > starts[:-1]
    num_requests = jnp.max(jnp.where(has_tokens, jnp.arange(1, starts.shape[0]), 0))
    kernel: Callable[..., jax.Array] = ragged_paged_attention
    return kernel(
        query,
        pool,
        batch.context_lens,
        batch.page_table,
        starts.astype(jnp.int32),
        num_requests.reshape(1).astype(jnp.int32),
        sm_scale=scale,
        sliding_window=window,
        soft_cap=soft_cap,
        **_step_sizes(query.shape[0], pool.shape[1], batch.page_table.shape[1]),
    )


def _step_sizes(num_tokens: int, page_size: int, width: int) -> dict[str, int]:
    """What a step of the ragged kernel works on. JAX has a table of the best for a TPU that is there.

    For other processes, which compile ahead of time, sizes that fit in any VMEM.
    """
    if jax.default_backend() == "tpu":
        return {}
    return {
        "num_kv_pages_per_block": min(width, max(1, 512 // page_size)),
        "num_queries_per_block": min(num_tokens, 32),
    }


def _decode_on_tpu(
    query: jax.Array,
    key_pages: jax.Array,
    value_pages: jax.Array,
    batch: _Batch,
    *,
    scale: float,
    soft_cap: float | None,
) -> jax.Array:
    from jax.experimental.pallas.ops.tpu.paged_attention import paged_attention

    page_table, lens = batch.of_tokens()
    per_step = min(page_table.shape[1], max(1, 512 // key_pages.shape[2]))
    kernel: Callable[..., jax.Array] = paged_attention
    return kernel(
        query.astype(jnp.float32) * scale,  # the kernel sums in the dtype of the query
        key_pages,
        value_pages,
        lens,
        _widen(page_table, per_step),
        pages_per_compute_block=per_step,
        attn_logits_soft_cap=soft_cap,
    )


def _decode_on_gpu(
    query: jax.Array,
    key_pages: jax.Array,
    value_pages: jax.Array,
    batch: _Batch,
    *,
    scale: float,
    soft_cap: float | None,
    interpret: bool,
) -> jax.Array:
    from jax.experimental.pallas.ops.gpu.paged_attention import paged_attention

    page_table, lens = batch.of_tokens()
    per_step = 1 << int(math.log2(max(1, 128 // key_pages.shape[2])))
    splits = min(16, 1 << int(math.log2(max(1, page_table.shape[1] // per_step))))
    kernel: Callable[..., jax.Array] = paged_attention
    return kernel(
        (query.astype(jnp.float32) * scale).astype(query.dtype),
        key_pages,
        value_pages,
        _widen(page_table, per_step * splits),
        lens,
        pages_per_compute_block=per_step,
        k_splits=splits,
        attn_logits_soft_cap=soft_cap,
        interpret=interpret,
    )


def _widen(page_table: jax.Array, multiple: int) -> jax.Array:
    """With page 0 behind, up to a multiple of pages."""
    return jnp.pad(page_table, ((0, 0), (0, -page_table.shape[1] % multiple)))
