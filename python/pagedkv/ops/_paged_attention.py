"""Causal attention over K/V where it lies: in the pages."""

import functools
import math
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from pagedkv.layouts import KVLayout
from pagedkv.ops import _checks, _reference
from pagedkv.ops._axes import OpAxes, pool_axes
from pagedkv.ops._checks import Mode
from pagedkv.ops._dispatch import COUNT, Op

_DTYPES = ("float32", "bfloat16")
_MAX_FLOAT32 = float(np.finfo(np.float32).max)


class PagedAttention(NamedTuple):
    """What the queries attended to, and how many requests and page ids could not be read."""

    output: jax.Array
    num_dropped: jax.Array


def paged_attention(
    query: ArrayLike,
    key_pages: ArrayLike,
    value_pages: ArrayLike,
    page_table: ArrayLike,
    query_starts: ArrayLike,
    context_lens: ArrayLike,
    *,
    layer: ArrayLike | None = None,
    scale: float | None = None,
    sliding_window: ArrayLike | None = None,
    mode: Mode = "drop",
) -> PagedAttention:
    """Attends from the newest tokens of each request to all of its tokens so far.

    One call serves a ragged batch, chunks of prompts and decodes mixed: the query tokens of request
    ``r`` are ``query[query_starts[r]:query_starts[r + 1]]``, and they are the last of its
    ``context_lens[r]`` tokens. Each sees the tokens up to itself, or with a window of ``w`` the last
    ``w`` of these. Query heads share the kv heads in equal groups, neighbours together.

    On the CPU the pages are read where they are, so neither time nor memory depends on the width of
    the page table or the size of the pool. Nor does time on what is left of all windows: those
    pages are not read, so their ids may be the null page, or any other. Sums are float32, whatever the dtype. A token's output
    depends on its own request alone, to the last bit. Write the K/V of the query tokens first, and
    pass the pools that `write_kv` returned.

    On a mesh the pools may be sharded over kv heads, and so is the output then. For pages that are
    sharded call it inside `jax.shard_map`, with requests sharded alike and ids of a device's own
    pages (`local_ids` converts).

    Elsewhere it is plain XLA, which gathers the context of every token: right, but slow.

    Args:
      query: The dtype of ``key_pages``, shape ``[tokens, heads, head_dim]``, where ``heads`` is a
        multiple of ``kv_heads``.
      key_pages: float32 or bfloat16, shape ``[pages, page_size, kv_heads, head_dim]``, or
        ``[layers, pages, page_size, kv_heads, head_dim]`` with ``layer``.
      value_pages: The dtype and shape of ``key_pages``, but for ``head_dim``.
      page_table: int32, shape ``[requests, width]``. Entry ``[r, i]`` is the page of tokens
        ``i * page_size ...`` of request ``r``; those beyond its last token are not read.
      query_starts: int32, shape ``[requests + 1]``, non-decreasing, in ``[0, tokens]``. An entry
        that is too high drops the later requests that start below it too, because no two requests
        may share a token.
      context_lens: int32, shape ``[requests]``: the tokens whose K/V is in the pages, the query
        tokens among them, so at least as many, and at most ``width * page_size``.
      layer: int, or int32 scalar array, in ``[0, layers)``. For pools with a layer axis.
      scale: Factor of the scores; ``head_dim ** -0.5`` without it.
      sliding_window: int, or int32 scalar array so that layers of one `jax.lax.scan` can differ, at
        least 1: how many tokens each sees, itself among them. Token ``t`` attends to tokens ``t -
        sliding_window + 1`` to ``t``, as Hugging Face defines it. All tokens without it.
      mode: What becomes of what is out of range. "drop" leaves a page out as if its tokens did not
        exist, gives zeros for a request with a wrong length or start, and counts both; with a window
        below 1 every request is wrong. "raise" fails with `jax.errors.JaxRuntimeError` and is for
        debugging. Only the CPU can raise, other platforms drop.

    Returns:
      ``output``: the dtype of ``query``, shape ``[tokens, heads, value head_dim]``; zeros for tokens
      that belong to no request or see nothing. ``num_dropped``: int32, shape ``[]``, how many
      requests, and how many page ids of those that are to be read, were out of range.

    Raises:
      TypeError: If an operand is no array or of the wrong dtype, or ``scale`` is no number.
      ValueError: If shapes do not fit together, ``sliding_window`` is an int below 1, or ``mode`` is
        unknown; also when differentiated.
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
    layered = layer is not None
    _checks.check_mode(operation, mode)
    keys = _checks.as_array(operation, "key_pages", key_pages)
    values = _checks.as_array(operation, "value_pages", value_pages)
    for name, pages in {"key_pages": keys, "value_pages": values}.items():
        _checks.check_pool(operation, name, pages, layered=layered)
        if pages.dtype not in _DTYPES:
            raise TypeError(
                f"[{operation}] {name} must be {' or '.join(_DTYPES)}, got {pages.dtype}"
            )
    _checks.check_same_pages(operation, keys, values)
    if values.dtype != keys.dtype:
        raise TypeError(
            f"[{operation}] value_pages must be {keys.dtype} as key_pages, got {values.dtype}"
        )
    queries = _checks.as_array(operation, "query", query)
    _checks.check_query(operation, queries, keys)
    ids = {"page_table": page_table, "query_starts": query_starts, "context_lens": context_lens}
    for name, array in ids.items():
        _checks.check_int32(operation, name, _checks.as_array(operation, name, array))
    _checks.check_batch(
        operation, *(_checks.as_array(operation, name, array) for name, array in ids.items())
    )
    op = _op(layered, _scale(operation, scale, queries.shape[-1]), mode)
    return PagedAttention(
        *op(
            query,
            key_pages,
            value_pages,
            page_table,
            query_starts,
            context_lens,
            _checks.as_layer(operation, layer, keys),
            _checks.as_window(operation, sliding_window),
        )
    )


def _scale(operation: str, scale: float | None, head_dim: int) -> float:
    if scale is None:
        return 1 / math.sqrt(head_dim)
    if isinstance(scale, int | float) and not isinstance(scale, bool):
        if math.inf > abs(scale) > _MAX_FLOAT32:
            raise ValueError(f"[{operation}] scale must be in the range of float32, got {scale}")
        return float(scale)
    raise TypeError(f"[{operation}] scale must be a number, got {type(scale).__name__}")


@functools.cache
def _op(layered: bool, scale: float, mode: str) -> Op:
    return Op(
        "pagedkv.paged_attention.v1",
        functools.partial(_reference.paged_attention, layered=layered, scale=scale),
        lambda query, _, values, *__: (
            jax.ShapeDtypeStruct((*query.shape[:-1], values.shape[-1]), query.dtype),
            COUNT,
        ),
        axes=_axes(layered),
        # A batch is ragged as it is, so vmap has little to give: one element after the other.
        vmap_method="sequential",
        aliases={},
        attributes={
            "layered": layered,
            "scale": np.float32(scale),
            "mode": mode,
            "instruction_set": "best",
        },
    )


def _axes(layered: bool) -> OpAxes:
    pool = pool_axes(KVLayout.NHD, layered=layered)
    rows = ("tokens", "kv_heads", "head_dim")  # some query heads for each kv head
    return OpAxes(
        "paged_attention",
        operands={
            "query": rows,
            "key_pages": pool,
            "value_pages": pool,
            "page_table": ("requests", "width"),
            "query_starts": ("starts",),
            "context_lens": ("requests",),
            "layer": (),
            "sliding_window": (),
        },
        results=(rows, ()),
    )
