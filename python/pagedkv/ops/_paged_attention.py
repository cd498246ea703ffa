"""Causal attention over K/V where it lies: in the pages."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from pagedkv.layouts import KVLayout
from pagedkv.ops import _checks, _dispatch, _quantized, _reference
from pagedkv.ops._axes import OpAxes, pool_axes, scale_axes
from pagedkv.ops._checks import Mode
from pagedkv.ops._quantized import QuantizedPages

_MAX_FLOAT32 = float(np.finfo(np.float32).max)
_SINKS = 8  # the operand before the pools


class PagedAttention(NamedTuple):
    """What the queries attended to, and how many requests and page ids could not be read."""

    output: jax.Array
    num_dropped: jax.Array


def paged_attention(
    query: ArrayLike,
    key_pages: ArrayLike | QuantizedPages,
    value_pages: ArrayLike | QuantizedPages | None,
    page_table: ArrayLike,
    query_starts: ArrayLike,
    context_lens: ArrayLike,
    *,
    layer: ArrayLike | None = None,
    layout: KVLayout | str = KVLayout.NHD,
    num_kv_heads: int | None = None,
    value_dim: int | None = None,
    scale: float | None = None,
    soft_cap: float | None = None,
    sliding_window: ArrayLike | None = None,
    attention_chunk_size: ArrayLike | None = None,
    num_sink_tokens: ArrayLike | None = None,
    sinks: ArrayLike | None = None,
    mode: Mode = "drop",
) -> PagedAttention:
    """Attends from the newest tokens of each request to all of its tokens so far.

    One call serves a ragged batch, chunks of prompts and decodes mixed: the query tokens of request
    ``r`` are ``query[query_starts[r]:query_starts[r + 1]]``, and they are the last of its
    ``context_lens[r]`` tokens. Each sees the tokens up to itself, or those of them that the masks
    leave. Query heads share the kv heads in equal groups, neighbours together.

    The token at position ``p`` of its request sees position ``s`` if ``s <= p`` and either ``s <
    num_sink_tokens`` or both ``s > p - sliding_window`` and ``s // attention_chunk_size == p //
    attention_chunk_size``. Its output is ``softmax(cap(scale * q @ k)) @ v`` over these, where
    ``cap(x) = soft_cap * tanh(x / soft_cap)``, and the softmax has one score more, the head's entry
    of ``sinks``, with no value.

    On the CPU the pages are read where they are, in any layout, and quantised ones are read as they
    are: neither time nor memory depends on the width of the page table or the size of the pool. Nor
    does time on pages that no query token sees: they are not read, so their ids may be the null
    page, or any other. Sums are float32, whatever the dtypes. A token's output depends on its own
    request alone, to the last bit. Write the K/V of the query tokens first, and pass the pools that
    `write_kv` returned.

    Under `jax.vmap` pools that are not mapped are read where they are, without a copy for each
    batch element.

    On a mesh the pools may be sharded over kv heads, and so is the output then. For pages that are
    sharded call it inside `jax.shard_map`, with requests sharded alike and ids of a device's own
    pages (`local_ids` converts).

    Elsewhere it is plain XLA, which gathers the context of every token: right, but slow.

    Args:
      query: float32, bfloat16 or float16, whatever the pools are; shape ``[tokens, heads,
        head_dim]``, where ``heads`` is a multiple of the kv heads.
      key_pages: float32, bfloat16 or float16, shape ``[pages, page_size, kv_heads, head_dim]`` or
        what ``layout`` says, and a layer axis before it with ``layer``. Or `QuantizedPages` of such.
        In a layout that pads, the pool may have more heads and elements than are read.
      value_pages: The dtype and shape of ``key_pages``, but for ``head_dim``. None in a layout whose
        ``key_pages`` hold the values too.
      page_table: int32, shape ``[requests, width]``. Entry ``[r, i]`` is the page of tokens
        ``i * page_size ...`` of request ``r``; those beyond its last token are not read.
      query_starts: int32, shape ``[requests + 1]``, non-decreasing, in ``[0, tokens]``. An entry
        that is too high drops the later requests that start below it too, because no two requests
        may share a token.
      context_lens: int32, shape ``[requests]``: the tokens whose K/V is in the pages, the query
        tokens among them, so at least as many, and at most ``width * page_size``.
      layer: int, or int32 scalar array, in ``[0, layers)``. For pools with a layer axis.
      layout: How rows lie in the pools: a `pagedkv.KVLayout`, or its name. In a latent one a token
        has one row for all heads (MLA): ``head_dim`` elements are its key, and the first
        ``value_dim`` of these its value.
      num_kv_heads: In a layout that pads, how many heads the pool was written with, if these are
        fewer than it has room for.
      value_dim: Elements of a value: in a latent layout at most ``head_dim``, which it is without
        one. Elsewhere what the pool says.
      scale: Factor of the scores; ``head_dim ** -0.5`` without it.
      soft_cap: Above 0: what scores stay below (Gemma 2). No cap without it.
      sliding_window: int, or int32 scalar array so that layers of one `jax.lax.scan` can differ, at
        least 1: how many tokens each sees, itself among them. Token ``t`` attends to tokens ``t -
        sliding_window + 1`` to ``t``, as Hugging Face defines it. All tokens without it.
      attention_chunk_size: int, or int32 scalar array, at least 1: a token sees those of its own
        chunk only, counted from the request's first token (Llama 4). One chunk without it.
      num_sink_tokens: int, or int32 scalar array, at least 0: how many of a request's first tokens
        are seen whatever window and chunk are (StreamingLLM). None without it.
      sinks: float32, shape ``[heads]``: a learned score of each head that takes its share of the
        weights and gives nothing (gpt-oss). Neither ``scale`` nor ``soft_cap`` applies to it.
      mode: What becomes of what is out of range. "drop" leaves a page out as if its tokens did not
        exist, gives zeros for a request with a wrong length or start, and counts both; with a
        window or chunk below 1 or sink tokens below 0 every request is wrong. "raise" fails with
        `jax.errors.JaxRuntimeError` and is for debugging. Only the CPU can raise, other platforms
        drop.

    Returns:
      ``output``: the dtype of ``query``, shape ``[tokens, heads, value_dim]``; zeros for tokens
      that belong to no request or see nothing. ``num_dropped``: int32, shape ``[]``, how many
      requests, and how many page ids of those that are to be read, were out of range.

    Raises:
      TypeError: If an operand is no array or of the wrong dtype, or an option no number.
      ValueError: If shapes do not fit together, an option is an int or float out of its range, or
        ``mode`` is unknown; also when differentiated.
      IndexError: If ``layer`` is a Python int out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from pagedkv.ops import paged_attention
      >>> keys = jnp.zeros([4, 2, 1, 1])  # so a token attends to all it sees alike
      >>> values = jnp.arange(8.0).reshape(4, 2, 1, 1)
      >>> output, num_dropped = paged_attention(
      ...     jnp.ones([3, 1, 1]), keys, values, jnp.int32([[3, 1], [2, 0]]), jnp.int32([0, 2, 3]),
      ...     jnp.int32([3, 1]),
      ... )
      >>> output.ravel().tolist(), int(num_dropped)  # of 6 7, 6 7 2, and 4
      ([6.5, 5.0, 4.0], 0)
    """
    operation = "paged_attention"
    layout = _checks.as_layout(operation, layout)
    layered = layer is not None
    _checks.check_mode(operation, mode)
    pools = {"key_pages": key_pages, "value_pages": value_pages}
    if layout.is_shared:
        _checks.check_absent(operation, "value_pages", pools.pop("value_pages"), layout)
    arrays, scales = _check_pools(operation, pools, layout, layered=layered)
    queries = _checks.as_array(operation, "query", query)
    pages = _checks.as_array(operation, "key_pages", arrays[0])
    heads, head_dim = _checks.check_query(
        operation, queries, pages, num_kv_heads, layout=layout, layered=layered
    )
    ids = {"page_table": page_table, "query_starts": query_starts, "context_lens": context_lens}
    for name, array in ids.items():
        _checks.check_int32(operation, name, _checks.as_array(operation, name, array))
    _checks.check_batch(
        operation, *(_checks.as_array(operation, name, array) for name, array in ids.items())
    )
    num_heads = queries.shape[1]
    return PagedAttention(
        *_attend(
            query,
            page_table,
            query_starts,
            context_lens,
            _checks.as_layer(operation, layer, pages),
            _checks.as_count(operation, "sliding_window", sliding_window),
            _checks.as_count(operation, "attention_chunk_size", attention_chunk_size),
            _checks.as_count(operation, "num_sink_tokens", num_sink_tokens, minimum=0, without=0),
            _as_sinks(operation, sinks, num_heads),
            *arrays,
            *scales,
            layout=layout,
            layered=layered,
            group_size=max(1, num_heads // heads),
            value_dim=_value_dim(operation, value_dim, head_dim, arrays, layout),
            scale=_scale(operation, scale, head_dim),
            soft_cap=_soft_cap(operation, soft_cap),
            mode=mode,
        )
    )


def _check_pools(
    operation: str, pools: dict[str, Any], layout: KVLayout, *, layered: bool
) -> tuple[list[Any], list[Any]]:
    """The arrays of the pools, and of their scales."""
    is_quantized = isinstance(pools["key_pages"], QuantizedPages)
    arrays: list[Any] = []
    scales: list[Any] = []
    for name, pool in pools.items():
        if isinstance(pool, QuantizedPages) != is_quantized:
            raise TypeError(
                f"[{operation}] key_pages and value_pages must both be QuantizedPages, or neither"
            )
        pages = _checks.as_array(operation, name, _quantized.split(pool)[0])
        _checks.check_pool(operation, name, pages, layered=layered, layout=layout)
        if isinstance(pool, QuantizedPages):
            _quantized.granularity_of(operation, name, pool, layout, layered=layered)
            scales.append(pool.scales)
        elif np.dtype(pages.dtype).name not in _quantized.FLOATS:
            raise TypeError(
                f"[{operation}] {name} must be one of {', '.join(_quantized.FLOATS)} or "
                f"QuantizedPages, got {pages.dtype}"
            )
        if arrays and pages.dtype != arrays[0].dtype:
            raise TypeError(
                f"[{operation}] value_pages must be {arrays[0].dtype} as key_pages, "
                f"got {pages.dtype}"
            )
        arrays.append(_quantized.split(pool)[0])
    if len(arrays) > 1:
        _checks.check_same_pages(operation, arrays[0], arrays[1])
    return arrays, scales


def _value_dim(
    operation: str, value_dim: int | None, head_dim: int, arrays: list[Any], layout: KVLayout
) -> int:
    own = head_dim if layout.is_shared else arrays[1].shape[-1]
    if value_dim is None:
        return own
    if not isinstance(value_dim, int) or isinstance(value_dim, bool):
        raise TypeError(f"[{operation}] value_dim must be an int, got {type(value_dim).__name__}")
    fits = 1 <= value_dim <= own if layout.is_latent else value_dim == own
    if not fits:
        at_most = "between 1 and " if layout.is_latent else ""
        raise ValueError(
            f"[{operation}] value_dim must be {at_most}{own} in layout {layout.name}, "
            f"got {value_dim}"
        )
    return value_dim


def _as_sinks(operation: str, sinks: ArrayLike | None, num_heads: int) -> ArrayLike:
    if sinks is None:
        return np.zeros([0], np.float32)
    array = _checks.as_array(operation, "sinks", sinks)
    if array.dtype != np.float32:
        raise TypeError(f"[{operation}] sinks must be float32, got {array.dtype}")
    if array.shape != (num_heads,):
        raise ValueError(
            f"[{operation}] sinks must have shape [{num_heads}], one for each head of query, "
            f"got {list(array.shape)}"
        )
    return sinks


def _scale(operation: str, scale: float | None, head_dim: int) -> float:
    if scale is None:
        return 1 / math.sqrt(head_dim)
    return _float32(operation, "scale", scale)


def _soft_cap(operation: str, soft_cap: float | None) -> float:
    if soft_cap is None:
        return 0.0
    cap = _float32(operation, "soft_cap", soft_cap)
    if not 0 < np.float32(cap) < math.inf:
        raise ValueError(f"[{operation}] soft_cap must be above 0 and finite, got {soft_cap}")
    return cap


def _float32(operation: str, name: str, value: float) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if math.inf > abs(value) > _MAX_FLOAT32:
            raise ValueError(f"[{operation}] {name} must be in the range of float32, got {value}")
        return float(value)
    raise TypeError(f"[{operation}] {name} must be a number, got {type(value).__name__}")


_STATIC = ("layout", "layered", "group_size", "value_dim", "scale", "soft_cap", "mode")


@functools.partial(jax.jit, static_argnames=_STATIC, inline=True)
def _attend(
    *operands: jax.Array,
    layout: KVLayout,
    layered: bool,
    group_size: int,
    value_dim: int,
    scale: float,
    soft_cap: float,
    mode: str,
) -> tuple[jax.Array, ...]:
    return _dispatch.call(
        "pagedkv.paged_attention.v2",
        functools.partial(
            _reference.paged_attention,
            layout=layout,
            layered=layered,
            group_size=group_size,
            value_dim=value_dim,
            scale=scale,
            soft_cap=soft_cap,
        ),
        *operands,
        axes=_axes(operands, layout, layered, group_size),
        # Not broadcast_all: it would copy a pool that is not mapped once for each batch element.
        vmap_method="expand_dims",
        aliases={},
        layout=layout.name,
        layered=layered,
        group_size=group_size,
        scale=np.float32(scale),
        soft_cap=np.float32(soft_cap),
        mode=mode,
        instruction_set="best",
    )


def _axes(
    operands: Sequence[jax.Array], layout: KVLayout, layered: bool, group_size: int
) -> OpAxes:
    query, sinks, pages, *_ = operands[0], *operands[_SINKS:]
    pool = pool_axes(layout, layered=layered)
    sides = ("key",) if layout.is_shared else ("key", "value")
    pools = {f"{side}_pages": pool for side in sides}
    rank = operands[-1].ndim
    if len(operands) > _SINKS + 1 + len(sides):
        scales = scale_axes(layout, layered=layered, rank=rank)
        pools |= {f"{side}_scales": scales for side in sides}
    heads = "kv_heads"  # some query heads for each kv head
    if layout.is_latent:
        heads = "heads"
    elif query.shape[1] // group_size != layout.room(pages.shape[layered:])[0]:
        # Each device would round its own heads up, and so look for them elsewhere.
        heads = "heads"
        pools = {
            name: tuple("padded_kv_heads" if axis == "kv_heads" else axis for axis in axes)
            for name, axes in pools.items()
        }
    return OpAxes(
        "paged_attention",
        operands={
            "query": ("tokens", heads, "head_dim"),
            "page_table": ("requests", "width"),
            "query_starts": ("starts",),
            "context_lens": ("requests",),
            "layer": (),
            "sliding_window": (),
            "attention_chunk_size": (),
            "num_sink_tokens": (),
            "sinks": (heads if sinks.size else "none",),
            **pools,
        },
        results=(("tokens", heads, "head_dim"), ()),
    )
