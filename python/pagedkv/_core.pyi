"""C++ core of pagedkv. Import from `pagedkv`, not from here."""

from collections.abc import Iterable, Sequence
import os
from typing import Annotated, Any, overload

import numpy
from numpy.typing import NDArray

import pagedkv.inspection


class CacheSpec:
    """
    What one layer keeps in the cache, and in pages of what size.

    Specs are immutable values: compared and hashed by what they say, and can be pickled. The names and
    the arithmetic of pages are vLLM's and EasyDeL's, with "page" for "block". The type of a layer is
    one of the classes below; this one is for ``isinstance``.
    """

    @property
    def page_size(self) -> int:
        """Tokens a page holds."""

    @property
    def page_size_bytes(self) -> int:
        """
        Bytes one page of one layer takes: ``page_size_padded`` if that is set.
        """

    @property
    def real_page_size_bytes(self) -> int:
        """Bytes of a page that carry data."""

    @property
    def page_size_padded(self) -> int | None:
        """Bytes a page is padded to, or None."""

    @property
    def type_id(self) -> str:
        """
        Equal for layers that ask the same of a page table, such as ``"full_attention_16_12288"``.
        """

    @property
    def kind(self) -> str:
        """
        The kind of cache by the name vLLM's KV events give it: ``"mla_attention"``, …
        """

class AttentionSpec(CacheSpec):
    """A layer that keeps K and V of tokens. For ``isinstance``."""

    @property
    def num_kv_heads(self) -> int:
        """Rows of K a token has, and of V."""

    @property
    def head_size(self) -> int:
        """Elements of a row of K."""

    @property
    def head_size_v(self) -> int:
        """Elements of a row of V. 0 for a latent cache."""

    @property
    def dtype(self) -> str:
        """Name of the element type, as NumPy and JAX give it."""

    @property
    def use_mla(self) -> bool:
        """
        True iff one latent row stands for K and V (multi-head latent attention).
        """

class FullAttentionSpec(AttentionSpec):
    """A layer whose attention sees every earlier token: all K/V is kept."""

    def __init__(self, page_size: int, num_kv_heads: int, head_size: int, dtype: object, use_mla: bool = False, sliding_window: int | None = None, attention_chunk_size: int | None = None, *, head_size_v: int | None = None, page_size_padded: int | None = None) -> None:
        """
        Describes a layer by the K/V of one token.

        Args:
          page_size: Tokens a page holds, at least 1.
          num_kv_heads: Rows of K a token has, and of V; at least 1.
          head_size: Elements of a row of K, at least 1.
          dtype: Name such as ``"bfloat16"``, or a NumPy, ml_dtypes or JAX dtype.
          use_mla: One latent row of ``head_size`` stands for K and V. The same as ``head_size_v=0``.
          sliding_window: Tokens the layer's attention sees, where it computes with a window although its
            pages are kept as for full attention.
          attention_chunk_size: The same for chunks.
          head_size_v: Elements of a row of V. None: ``head_size``, or 0 with ``use_mla``.
          page_size_padded: Bytes a page is padded to, at least those of its data. None: no padding.

        Raises:
          TypeError: If an argument is of another type.
          ValueError: If a size is out of range, the dtype is unknown, or a page is not whole bytes.

        Example:

            >>> FullAttentionSpec(16, 3, 64, "bfloat16").page_size_bytes
            12288
        """

    @property
    def sliding_window(self) -> int | None:
        """Tokens attention sees, if it computes with a window, else None."""

    @property
    def attention_chunk_size(self) -> int | None:
        """
        Tokens of the chunks attention sees, if it computes in chunks, else None.
        """

    def max_memory_usage_bytes(self, max_model_len: int, **kwargs: object) -> int:
        """
        Bytes one layer needs for a request of ``max_model_len`` tokens, in whole pages.

        Other keywords are ignored, so that specs of all types can be asked alike.

        Raises:
          ValueError: If ``max_model_len`` is negative.
        """

    @staticmethod
    def merge_window_sizes(window_sizes: Iterable[int]) -> int | None:
        """
        The one window (or chunk) size of a group's layers, where ``window_sizes`` are those that are set.

        Returns:
          None if none is set.

        Raises:
          ValueError: If they differ.
        """

    def __eq__(self, other: object, /) -> bool: ...

    def __hash__(self) -> int: ...

    def __repr__(self) -> str: ...

    def __reduce__(self) -> tuple[object, ...]: ...

    @staticmethod
    def merge(specs: Sequence[SinkFullAttentionSpec | FullAttentionSpec | SlidingWindowSpec | ChunkedLocalAttentionSpec | CrossAttentionSpec | MambaSpec]) -> FullAttentionSpec:
        """
        The spec of a group whose layers have ``specs``: those that ask the same of a page table.

        Raises:
          ValueError: If ``specs`` is empty, or two differ in type, ``type_id``, page size or page bytes.
        """

    def copy_with_new_page_size(self, page_size: int) -> FullAttentionSpec:
        """
        The same with ``page_size`` tokens a page; ``page_size_padded`` grows in proportion to the data.

        Raises:
          ValueError: If ``page_size`` is below 1, or the padding would be no whole number of bytes.
        """

class SinkFullAttentionSpec(FullAttentionSpec):
    """
    Full attention whose first ``sink_len`` tokens, the attention sink, stay for every request.

    The idea and the name are vLLM's.
    """

    def __init__(self, page_size: int, num_kv_heads: int, head_size: int, dtype: object, use_mla: bool = False, sliding_window: int | None = None, attention_chunk_size: int | None = None, *, sink_len: int, head_size_v: int | None = None, page_size_padded: int | None = None) -> None:
        """
        Describes a layer with a sink. Arguments are those of ``FullAttentionSpec``, and:

        Args:
          sink_len: Tokens at the start that attention always sees: a positive multiple of ``page_size``.

        Raises:
          TypeError: If an argument is of another type.
          ValueError: As ``FullAttentionSpec``, and if ``sink_len`` is no positive multiple of
            ``page_size``.
        """

    @property
    def sink_len(self) -> int:
        """Tokens at the start that attention always sees."""

    def __eq__(self, other: object, /) -> bool: ...

    def __hash__(self) -> int: ...

    def __repr__(self) -> str: ...

    def __reduce__(self) -> tuple[object, ...]: ...

    @staticmethod
    def merge(specs: Sequence[SinkFullAttentionSpec | FullAttentionSpec | SlidingWindowSpec | ChunkedLocalAttentionSpec | CrossAttentionSpec | MambaSpec]) -> SinkFullAttentionSpec:
        """
        The spec of a group whose layers have ``specs``: those that ask the same of a page table.

        Raises:
          ValueError: If ``specs`` is empty, or two differ in type, ``type_id``, page size or page bytes.
        """

    def copy_with_new_page_size(self, page_size: int) -> SinkFullAttentionSpec:
        """
        The same with ``page_size`` tokens a page; ``page_size_padded`` grows in proportion to the data.

        Raises:
          ValueError: If ``page_size`` is below 1, or the padding would be no whole number of bytes.
        """

class SlidingWindowSpec(AttentionSpec):
    """
    A layer whose attention sees the last ``sliding_window`` tokens. A latent cache may slide too.
    """

    def __init__(self, page_size: int, num_kv_heads: int, head_size: int, dtype: object, use_mla: bool = False, sliding_window: int = ..., *, head_size_v: int | None = None, page_size_padded: int | None = None) -> None:
        """
        Describes a layer by the K/V of one token and what attention sees.

        Args:
          page_size: Tokens a page holds, at least 1.
          num_kv_heads: Rows of K a token has, and of V; at least 1.
          head_size: Elements of a row of K, at least 1.
          dtype: Name such as ``"bfloat16"``, or a NumPy, ml_dtypes or JAX dtype.
          use_mla: One latent row of ``head_size`` stands for K and V. The same as ``head_size_v=0``.
          sliding_window: Tokens attention sees, the token itself included; at least 1. Required.
          head_size_v: Elements of a row of V. None: ``head_size``, or 0 with ``use_mla``.
          page_size_padded: Bytes a page is padded to, at least those of its data. None: no padding.

        Raises:
          TypeError: If an argument is of another type, or ``sliding_window`` is missing.
          ValueError: If a size is out of range, the dtype is unknown, or a page is not whole bytes.

        Example:

            >>> SlidingWindowSpec(16, 1, 64, "int8", sliding_window=512).max_memory_usage_bytes(8192, 1)
            67584
        """

    @property
    def sliding_window(self) -> int:
        """Tokens attention sees, the token itself included."""

    def max_memory_usage_bytes(self, max_model_len: int, max_num_batched_tokens: int, **kwargs: object) -> int:
        """
        Bytes one layer needs for one request: the window before a step and the step's tokens, in whole
        pages, and a page more since a window need not begin where a page does (vLLM's page maths).

        Other keywords are ignored, so that specs of all types can be asked alike.

        Args:
          max_model_len: Tokens of the longest request.
          max_num_batched_tokens: Tokens the largest step computes.

        Raises:
          ValueError: If a limit is negative.
        """

    def __eq__(self, other: object, /) -> bool: ...

    def __hash__(self) -> int: ...

    def __repr__(self) -> str: ...

    def __reduce__(self) -> tuple[object, ...]: ...

    @staticmethod
    def merge(specs: Sequence[SinkFullAttentionSpec | FullAttentionSpec | SlidingWindowSpec | ChunkedLocalAttentionSpec | CrossAttentionSpec | MambaSpec]) -> SlidingWindowSpec:
        """
        The spec of a group whose layers have ``specs``: those that ask the same of a page table.

        Raises:
          ValueError: If ``specs`` is empty, or two differ in type, ``type_id``, page size or page bytes.
        """

    def copy_with_new_page_size(self, page_size: int) -> SlidingWindowSpec:
        """
        The same with ``page_size`` tokens a page; ``page_size_padded`` grows in proportion to the data.

        Raises:
          ValueError: If ``page_size`` is below 1, or the padding would be no whole number of bytes.
        """

class ChunkedLocalAttentionSpec(AttentionSpec):
    """
    A layer whose attention sees the tokens of its own chunk, as in Llama 4.

    Token ``t`` sees those from ``t // attention_chunk_size * attention_chunk_size`` on.
    """

    def __init__(self, page_size: int, num_kv_heads: int, head_size: int, dtype: object, use_mla: bool = False, attention_chunk_size: int = ..., *, head_size_v: int | None = None, page_size_padded: int | None = None) -> None:
        """
        Describes a layer by the K/V of one token and what attention sees.

        Args:
          page_size: Tokens a page holds, at least 1.
          num_kv_heads: Rows of K a token has, and of V; at least 1.
          head_size: Elements of a row of K, at least 1.
          dtype: Name such as ``"bfloat16"``, or a NumPy, ml_dtypes or JAX dtype.
          use_mla: One latent row of ``head_size`` stands for K and V. The same as ``head_size_v=0``.
          attention_chunk_size: Tokens of a chunk, at least 1. Required.
          head_size_v: Elements of a row of V. None: ``head_size``, or 0 with ``use_mla``.
          page_size_padded: Bytes a page is padded to, at least those of its data. None: no padding.

        Raises:
          TypeError: If an argument is of another type, or ``attention_chunk_size`` is missing.
          ValueError: If a size is out of range, the dtype is unknown, or a page is not whole bytes.

        Example:

            >>> ChunkedLocalAttentionSpec(16, 1, 64, "int8", attention_chunk_size=512).type_id
            'local_attention_512_16_2048'
        """

    @property
    def attention_chunk_size(self) -> int:
        """Tokens of a chunk."""

    def max_memory_usage_bytes(self, max_model_len: int, max_num_batched_tokens: int, **kwargs: object) -> int:
        """
        Bytes one layer needs for one request: a chunk and the tokens of a step, in whole pages (vLLM's
        page maths).

        Other keywords are ignored, so that specs of all types can be asked alike.

        Args:
          max_model_len: Tokens of the longest request.
          max_num_batched_tokens: Tokens the largest step computes.

        Raises:
          ValueError: If a limit is negative.
        """

    def __eq__(self, other: object, /) -> bool: ...

    def __hash__(self) -> int: ...

    def __repr__(self) -> str: ...

    def __reduce__(self) -> tuple[object, ...]: ...

    @staticmethod
    def merge(specs: Sequence[SinkFullAttentionSpec | FullAttentionSpec | SlidingWindowSpec | ChunkedLocalAttentionSpec | CrossAttentionSpec | MambaSpec]) -> ChunkedLocalAttentionSpec:
        """
        The spec of a group whose layers have ``specs``: those that ask the same of a page table.

        Raises:
          ValueError: If ``specs`` is empty, or two differ in type, ``type_id``, page size or page bytes.
        """

    def copy_with_new_page_size(self, page_size: int) -> ChunkedLocalAttentionSpec:
        """
        The same with ``page_size`` tokens a page; ``page_size_padded`` grows in proportion to the data.

        Raises:
          ValueError: If ``page_size`` is below 1, or the padding would be no whole number of bytes.
        """

class CrossAttentionSpec(AttentionSpec):
    """
    A layer that attends to an encoder's output, whose K/V is kept as long as the request lives.
    """

    def __init__(self, page_size: int, num_kv_heads: int, head_size: int, dtype: object, use_mla: bool = False, *, head_size_v: int | None = None, page_size_padded: int | None = None) -> None:
        """
        Describes a layer by the K/V of one token of the encoder.

        Args:
          page_size: Encoder tokens a page holds, at least 1.
          num_kv_heads: Rows of K a token has, and of V; at least 1.
          head_size: Elements of a row of K, at least 1.
          dtype: Name such as ``"bfloat16"``, or a NumPy, ml_dtypes or JAX dtype.
          use_mla: One latent row of ``head_size`` stands for K and V. The same as ``head_size_v=0``.
          head_size_v: Elements of a row of V. None: ``head_size``, or 0 with ``use_mla``.
          page_size_padded: Bytes a page is padded to, at least those of its data. None: no padding.

        Raises:
          TypeError: If an argument is of another type.
          ValueError: If a size is out of range, the dtype is unknown, or a page is not whole bytes.
        """

    def max_memory_usage_bytes(self, *, max_encoder_tokens: int, **kwargs: object) -> int:
        """
        Bytes one layer needs for an encoder input of ``max_encoder_tokens`` tokens, in whole pages.

        Other keywords are ignored, so that specs of all types can be asked alike.

        Raises:
          ValueError: If ``max_encoder_tokens`` is negative.
        """

    def __eq__(self, other: object, /) -> bool: ...

    def __hash__(self) -> int: ...

    def __repr__(self) -> str: ...

    def __reduce__(self) -> tuple[object, ...]: ...

    @staticmethod
    def merge(specs: Sequence[SinkFullAttentionSpec | FullAttentionSpec | SlidingWindowSpec | ChunkedLocalAttentionSpec | CrossAttentionSpec | MambaSpec]) -> CrossAttentionSpec:
        """
        The spec of a group whose layers have ``specs``: those that ask the same of a page table.

        Raises:
          ValueError: If ``specs`` is empty, or two differ in type, ``type_id``, page size or page bytes.
        """

    def copy_with_new_page_size(self, page_size: int) -> CrossAttentionSpec:
        """
        The same with ``page_size`` tokens a page; ``page_size_padded`` grows in proportion to the data.

        Raises:
          ValueError: If ``page_size`` is below 1, or the padding would be no whole number of bytes.
        """

class MambaSpec(CacheSpec):
    """
    A layer with a state of fixed size: Mamba, linear attention, short convolution.

    A page holds one whole state.
    """

    def __init__(self, page_size: int, shapes: Sequence[Sequence[int]], dtype: object, page_size_padded: int | None = None, *, cache_mode: str = 'none', num_speculative_pages: int = 0) -> None:
        """
        Describes a layer by the arrays of one state.

        Args:
          page_size: Tokens between states that are kept for others, at least 1.
          shapes: The shape of each array, without a batch axis: a tuple of tuples of int.
          dtype: Of all arrays, or a tuple with one for each. Names such as ``"bfloat16"``, or NumPy,
            ml_dtypes or JAX dtypes.
          page_size_padded: Bytes a page is padded to, at least those of a state. None: no padding.
          cache_mode: ``"none"``: a request keeps its running state. ``"align"``: also the state at a page
            end, from which other requests can start. vLLM's ``mamba_cache_mode``.
          num_speculative_pages: States kept for draft tokens that may be rejected.

        Raises:
          TypeError: If an argument is of another type.
          ValueError: If a size is out of range, ``shapes`` is empty, or a name is unknown.

        Example:

            >>> MambaSpec(1, ((16, 64), (16, 32)), "float32").page_size_bytes
            6144
        """

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each array of a state."""

    @property
    def dtype(self) -> str | tuple[str, ...]:
        """
        Name of the element type; if the arrays differ, a tuple with one for each.
        """

    @property
    def cache_mode(self) -> str:
        """``"none"`` or ``"align"``."""

    @property
    def num_speculative_pages(self) -> int:
        """States kept for draft tokens that may be rejected."""

    def max_memory_usage_bytes(self, **kwargs: object) -> int:
        """
        Bytes one layer needs for one request, however long: one state, in ``"align"`` mode two, and the
        speculative ones (vLLM's page maths). All keywords are ignored.
        """

    def __eq__(self, other: object, /) -> bool: ...

    def __hash__(self) -> int: ...

    def __repr__(self) -> str: ...

    def __reduce__(self) -> tuple[object, ...]: ...

    @staticmethod
    def merge(specs: Sequence[SinkFullAttentionSpec | FullAttentionSpec | SlidingWindowSpec | ChunkedLocalAttentionSpec | CrossAttentionSpec | MambaSpec]) -> MambaSpec:
        """
        The spec of a group whose layers have ``specs``: those that ask the same of a page table.

        Raises:
          ValueError: If ``specs`` is empty, or two differ in type, ``type_id``, page size or page bytes.
        """

    def copy_with_new_page_size(self, page_size: int) -> MambaSpec:
        """
        The same with ``page_size`` tokens a page; ``page_size_padded`` grows in proportion to the data.

        Raises:
          ValueError: If ``page_size`` is below 1, or the padding would be no whole number of bytes.
        """

class CacheGroupSpec:
    """Layers that share one page table: own tensors, same page ids."""

    def __init__(self, kv_cache_spec: CacheSpec, layer_names: Sequence[str] | None = None) -> None:
        """
        Groups layers that all have one spec.

        Args:
          kv_cache_spec: What each of the layers keeps.
          layer_names: Names of the layers, for the reader.

        Raises:
          TypeError: If an argument is of another type.
        """

    @property
    def kv_cache_spec(self) -> SinkFullAttentionSpec | FullAttentionSpec | SlidingWindowSpec | ChunkedLocalAttentionSpec | CrossAttentionSpec | MambaSpec:
        """What each of the layers keeps."""

    @property
    def layer_names(self) -> list[str] | None:
        """Names of the layers, a fresh list, or None if nobody said."""

    def __eq__(self, other: object, /) -> bool: ...

    def __hash__(self) -> int: ...

    def __repr__(self) -> str: ...

    def __reduce__(self) -> tuple[object, ...]: ...

class CacheGroupsConfig:
    """
    All that a manager needs to know of a model: its groups, and the pages they share.
    """

    def __init__(self, num_pages: int, kv_cache_groups: Sequence[CacheGroupSpec]) -> None:
        """
        Args:
          num_pages: Pages of the pool, the null page included; at least 1.
          kv_cache_groups: At least one group.

        Raises:
          TypeError: If an argument is of another type.
          ValueError: If ``num_pages`` is below 1, or there is no group.
        """

    @property
    def num_pages(self) -> int:
        """Pages of the pool, the null page included."""

    @property
    def kv_cache_groups(self) -> list[CacheGroupSpec]:
        """The groups, in a fresh list."""

    def __eq__(self, other: object, /) -> bool: ...

    def __hash__(self) -> int: ...

    def __repr__(self) -> str: ...

    def __reduce__(self) -> tuple[object, ...]: ...

class MultimodalItem:
    """
    An image, a sound or the like: its placeholders are tokens ``offset .. offset + length - 1``.
    """

    def __init__(self, identifier: str, offset: int, length: int) -> None:
        """
        Args:
          identifier: Names the content: equal content, equal identifier, such as its hash.
          offset: Position of its first token.
          length: Number of its tokens.
        """

    @property
    def identifier(self) -> str: ...

    @property
    def offset(self) -> int: ...

    @property
    def length(self) -> int: ...

    def __eq__(self, other: object, /) -> bool: ...

    def __hash__(self) -> int: ...

    def __repr__(self) -> str: ...

class PromptEmbeds:
    """
    Digests of the embeddings that a prompt gives in place of tokens, one for each page they reach.
    """

    def __init__(self, rows: Annotated[NDArray[numpy.uint8], dict(shape=(None, None), order='C', device='cpu', writable=False)], page_size: int) -> None:
        """
        Hashes ``rows``, and keeps the digests only.

        Args:
          rows: uint8, shape ``[n, bytes]``: the embeddings of the first ``n`` tokens, in memory order.
            ``pagedkv.hashing.prompt_embeds`` takes other dtypes.
          page_size: Tokens a page holds, as in the manager that will see the request.

        Raises:
          ValueError: If ``page_size`` is below 1, or ``rows`` is empty.
        """

    @property
    def page_size(self) -> int: ...

    @property
    def num_rows(self) -> int:
        """Tokens that have an embedding."""

    def __repr__(self) -> str: ...

class PagePoolView:
    """The pool of a `CacheManager`, to look at: only the manager changes it."""

    @property
    def num_pages(self) -> int:
        """All pages, the null page among them."""

    @property
    def num_free_pages(self) -> int: ...

    @property
    def num_cached_pages(self) -> int:
        """Pages whose content can be found, held or free, duplicates included."""

    @property
    def num_cached_keys(self) -> int:
        """Distinct (digest, group) keys among the cached pages."""

    @property
    def num_evictions(self) -> int:
        """Times a page lost its content because it was handed out again."""

    @property
    def num_shards(self) -> int:
        """Data-parallel shards: contiguous ranges of page ids of equal size."""

    def free_pages(self) -> NDArray[numpy.int32]:
        """
        The free pages, int32, shape ``[num_free_pages]``: those first that are evicted first.
        """

    def ref_count(self, page: int) -> int:
        """
        How many requests hold ``page``.

        Raises:
          IndexError: If ``page`` is not in ``[0, num_pages)``.
        """

    def is_cached(self, page: int) -> bool:
        """
        Whether the content of ``page`` can be found.

        Raises:
          IndexError: If ``page`` is not in ``[0, num_pages)``.
        """

    def digest(self, page: int) -> tuple[bytes, int] | None:
        """
        What the content of ``page`` is found by: its digest, padded with zeros to 32 bytes, and its group;
        None if it cannot be found.

        Raises:
          IndexError: If ``page`` is not in ``[0, num_pages)``.
        """

    def term(self, page: int) -> tuple[int, int | None, int | None]:
        """
        What ``page`` is kept on: priority, time limit and tenant. ``(50, None, None)`` if nobody asked.

        Raises:
          IndexError: If ``page`` is not in ``[0, num_pages)``.
        """

    def find(self, digest: bytes, group: int = 0, shard: int | None = None) -> int | None:
        """
        The oldest page whose content has this digest in ``group``, or None. With ``shard``, only its pages
        count.

        Raises:
          ValueError: If ``digest`` is not 16 or 32 bytes.
          IndexError: If ``shard`` is not a shard.
        """

    def check_invariants(self) -> None:
        """Raises RuntimeError naming what does not hold. For tests."""

    def __eq__(self, other: object | None) -> bool:
        """Whether it is the same pool."""

    def __hash__(self) -> int: ...

class PagePool:
    """
    Who holds which page, which pages are free, and what the cached ones contain.

    A page is held by ``ref_count`` requests, or free. A free page keeps its content, and can be found
    by it, until it is handed out again: least recently used first. Page 0 is the null page: never
    free, never held, never cached. Every call that raises leaves the pool as it was.
    """

    def __init__(self, num_pages: int) -> None:
        """
        Makes pages ``0 .. num_pages - 1``; ``1, 2, 3, ...`` is the first order of allocation.

        Raises:
          ValueError: If ``num_pages`` is below 1.
        """

    @property
    def num_pages(self) -> int:
        """All pages, the null page among them."""

    @property
    def num_free_pages(self) -> int: ...

    @property
    def num_cached_pages(self) -> int:
        """Pages whose content can be found, held or free, duplicates included."""

    @property
    def num_cached_keys(self) -> int:
        """Distinct (digest, group) keys among the cached pages."""

    @property
    def num_evictions(self) -> int:
        """Times a page lost its content because it was handed out again."""

    @property
    def num_shards(self) -> int:
        """Data-parallel shards: contiguous ranges of page ids of equal size."""

    def free_pages(self) -> NDArray[numpy.int32]:
        """
        The free pages, int32, shape ``[num_free_pages]``: those first that are evicted first.
        """

    def ref_count(self, page: int) -> int:
        """
        How many requests hold ``page``.

        Raises:
          IndexError: If ``page`` is not in ``[0, num_pages)``.
        """

    def is_cached(self, page: int) -> bool:
        """
        Whether the content of ``page`` can be found.

        Raises:
          IndexError: If ``page`` is not in ``[0, num_pages)``.
        """

    def digest(self, page: int) -> tuple[bytes, int] | None:
        """
        What the content of ``page`` is found by: its digest, padded with zeros to 32 bytes, and its group;
        None if it cannot be found.

        Raises:
          IndexError: If ``page`` is not in ``[0, num_pages)``.
        """

    def term(self, page: int) -> tuple[int, int | None, int | None]:
        """
        What ``page`` is kept on: priority, time limit and tenant. ``(50, None, None)`` if nobody asked.

        Raises:
          IndexError: If ``page`` is not in ``[0, num_pages)``.
        """

    def find(self, digest: bytes, group: int = 0, shard: int | None = None) -> int | None:
        """
        The oldest page whose content has this digest in ``group``, or None. With ``shard``, only its pages
        count.

        Raises:
          ValueError: If ``digest`` is not 16 or 32 bytes.
          IndexError: If ``shard`` is not a shard.
        """

    def check_invariants(self) -> None:
        """Raises RuntimeError naming what does not hold. For tests."""

    def allocate(self, count: int, shard: int | None = None) -> NDArray[numpy.int32] | None:
        """
        Takes the ``count`` coldest free pages, each held once; their old content is forgotten. With
        ``shard``, only its pages count.

        Returns:
          int32, shape ``[count]``, or None if fewer pages are free: then nothing is done.

        Raises:
          ValueError: If ``count`` is negative.
          IndexError: If ``shard`` is not a shard.

        Example:

            >>> pool = PagePool(4)
            >>> pool.allocate(2).tolist(), pool.allocate(2), pool.num_free_pages
            ([1, 2], None, 1)
        """

    def hold(self, pages: object) -> None:
        """
        Holds each page once more, taking it out of the free pages if it was free.

        Args:
          pages: int32, shape ``[n]``, each in ``[1, num_pages)``.

        Raises:
          IndexError: If a page is out of range.
        """

    def free(self, pages: object) -> None:
        """
        Gives each page back once, in the given order: of those nobody holds any more, the first becomes
        the coldest.

        Args:
          pages: int32, shape ``[n]``, each in ``[1, num_pages)``.

        Raises:
          IndexError: If a page is out of range.
          ValueError: If a page is not held that many times.
        """

    def cache(self, page: int, digest: bytes, group: int = 0) -> None:
        """
        Makes the content of a held page findable.

        Raises:
          IndexError: If ``page`` is out of range.
          ValueError: If nobody holds ``page``, if it is cached already, if ``digest`` is not 16 or 32
            bytes, or if ``group`` is negative.
        """

    def reset_prefix_cache(self) -> bool:
        """
        Forgets the content of every page. Returns False and does nothing while one is held.
        """

    def set_num_shards(self, num_shards: int) -> None:
        """
        Deals the pages out to data-parallel shards. Who holds what, what is cached and the order of eviction
        stay.

        Raises:
          ValueError: Unless ``num_shards`` is at least 1 and divides ``num_pages``.
        """

class CachePages:
    """
    Pages of one request, a list a group, as the calls of `CacheManager` that schedulers make hand them
    around.

    Only ids are kept; an object a page is made when ``pages`` is read.
    """

    def __init__(self, pages: tuple[list[Any], ...]) -> None:
        """Wraps a tuple of lists of pages, one a group."""

    @property
    def pages(self) -> tuple[list[Any], ...]:
        """The pages: a tuple of lists of `CachePage`, one a group."""

    def get_page_ids(self) -> tuple[list[int], ...]:
        """
        The ids of the pages: a fresh tuple of lists of int, one a group. 0, the null page, where a group
        needs none.
        """

    def get_unhashed_page_ids(self) -> list[int]:
        """
        The ids of the pages that have no hash: they cannot be found yet.

        Raises:
          ValueError: If there is more than one group.
        """

    def new_empty(self) -> CachePages:
        """Empty lists, as many as there are here."""

    def __add__(self, other: CachePages) -> CachePages:
        """The pages of both, group by group."""

    def __eq__(self, other: object | None) -> bool:
        """Whether the pages are the same."""

    def __repr__(self) -> str: ...

class RetentionRange:
    """Tokens of a prompt, and how long their pages are kept."""

    def __init__(self, start: int, end: int | None = None, *, priority: int = 50, ttl: int | None = None) -> None:
        """
        Tokens from ``start`` on to before ``end``; to the prompt's end if that is None.

        Args:
          start: At least 0.
          end: More than ``start``.
          priority: 0 to 100.
          ttl: At least 1; None for no limit.

        Raises:
          ValueError: If one is out of range.
        """

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int | None: ...

    @property
    def priority(self) -> int: ...

    @property
    def ttl(self) -> int | None: ...

    def __repr__(self) -> str: ...

class Retention:
    """
    How a request wants its pages to be kept once nobody holds them.

    The idea and its parts are those of TensorRT-LLM's ``KvCacheRetentionConfig``; tenants are ours. See
    ``docs/retention.md`` for the order of eviction.
    """

    def __init__(self, priority: int = 50, *, ttl: int | None = None, tenant: int | None = None, ranges: Sequence[RetentionRange] = [], decode_priority: int | None = None, decode_ttl: int | None = None) -> None:
        """
        A page has the strongest of all that its tokens have: the highest priority, then the longest time.

        Args:
          priority: 0 (evicted first) to 100 (last), of tokens that nothing below is about.
          ttl: After so long without use the priority is 50 again, in the unit of
            ``CacheManager.advance_time``. None for no limit.
          tenant: A number >= 0 for whom the pages are counted: see ``CacheManager.set_tenant_quota``.
          ranges: `RetentionRange`s of the prompt: of the tokens that the request is made with. They may
            overlap.
          decode_priority: Of tokens that are appended later. As ``priority`` if both are None.
          decode_ttl: Of those tokens.

        Raises:
          ValueError: If one is out of range.

        Example:

            >>> system_prompt = RetentionRange(0, 512, priority=90, ttl=3600)
            >>> retention = Retention(ranges=[system_prompt], decode_priority=10)
            >>> request = Request("a", range(1000), retention=retention)
            >>> request.retention.ranges
            [RetentionRange(0, 512, priority=90, ttl=3600)]
        """

    @property
    def priority(self) -> int: ...

    @property
    def ttl(self) -> int | None: ...

    @property
    def tenant(self) -> int | None: ...

    @property
    def ranges(self) -> list[RetentionRange]:
        """The ranges, by rising start."""

    @property
    def decode_priority(self) -> int: ...

    @property
    def decode_ttl(self) -> int | None: ...

class Request:
    """
    The tokens of one sequence, owned by C++, and the digests of its full pages.

    Tokens are only ever appended. A request holds pages of one manager at a time. What besides the
    tokens decides the content of its pages is given once: pages with different keys are never shared.
    """

    def __init__(self, request_id: str, tokens: object, *, lora: tuple[str, str] | None = None, mm_items: Sequence[MultimodalItem] = (), cache_salt: str | None = None, prompt_embeds: PromptEmbeds | None = None, num_encoder_tokens: int = 0, retention: Retention | None = None) -> None:
        """
        Copies the prompt.

        Args:
          request_id: A name for messages; nothing depends on its being unique.
          tokens: Token ids, shape ``[n]``: an integer array (int32 is fastest) or a sequence of int.
          lora: The adapter, as ``(name, path)``. Decides every page.
          mm_items: ``MultimodalItem``s, in any order. Each decides the pages it reaches, and so those
            behind them.
          cache_salt: Requests with different salts share nothing: one for each tenant keeps them apart.
          prompt_embeds: Embeddings in place of the prompt's first tokens, as ``PromptEmbeds``.
          num_encoder_tokens: Tokens of the encoder's output, for layers of cross attention.
          retention: How its pages are to be kept once nobody holds them; as all others if None.

        Raises:
          TypeError: If ``tokens`` are not integers in one dimension.
          ValueError: If a token does not fit in int32; for an empty name, identifier or salt; for items
            and embeddings that the tokens do not hold.

        Example:

            >>> request = Request("a", [11, 12])
            >>> request.append(13)
            >>> request.num_tokens, request.tokens.tolist()
            (3, [11, 12, 13])
        """

    @property
    def request_id(self) -> str: ...

    @property
    def num_tokens(self) -> int:
        """Prompt and output so far."""

    @property
    def num_encoder_tokens(self) -> int:
        """Tokens of the encoder's output."""

    @property
    def num_computed_tokens(self) -> int:
        """Tokens whose K/V is in pages the request holds; 0 while it holds none."""

    @property
    def is_allocated(self) -> bool:
        """Whether the request holds pages of a manager."""

    @property
    def tokens(self) -> NDArray[numpy.int32]:
        """A copy of the tokens: int32, shape ``[num_tokens]``."""

    @overload
    def append(self, token: int) -> None:
        """Appends one token."""

    @overload
    def append(self, tokens: object) -> None:
        """
        Appends tokens: an integer array of one dimension, or a sequence of int.

        Raises:
          TypeError: If ``tokens`` are not integers in one dimension.
          ValueError: If a token does not fit in int32; then none is appended.
        """

    def truncate(self, num_tokens: int) -> None:
        """
        Takes off all but the first ``num_tokens`` tokens: guesses of a draft model that were rejected.

        Commit the tokens that were accepted, and no more, before. Room that there was for the others stays.

        Raises:
          ValueError: If there are fewer tokens, if more are computed, or if more are covered by multimodal
            items or prompt embeddings.

        Example:

            >>> request = Request("a", [11, 12])
            >>> request.append([13, 14, 15])
            >>> request.truncate(4)
            >>> request.tokens.tolist()
            [11, 12, 13, 14]
        """

    def copy(self, request_id: str) -> Request:
        """
        A request of the same tokens, extra keys and retention, which holds no pages: for ``CacheManager.fork``.

        Example:

            >>> Request("a", [11, 12]).copy("b")
            Request('b', num_tokens=2, num_computed_tokens=0)
        """

    def page_hash(self, page: int) -> bytes:
        """
        The digest that names the content of full page ``page``: equal for requests that share it.

        Pages are of the size of the manager that last saw the request (``match`` or ``allocate``).

        Raises:
          ValueError: If no manager has seen the request yet.
          IndexError: If page ``page`` is not full.
        """

    def page_hashes(self, *, first_page: int = 0) -> Annotated[NDArray[numpy.uint8], dict(shape=(None, None))]:
        """
        The digests of all full pages from ``first_page`` on, for routers, events and shared stores.

        Pages are of the size of the manager that last saw the request (``match`` or ``allocate``).

        Returns:
          A fresh uint8 array, shape ``[pages, digest_bytes]``.

        Raises:
          ValueError: If no manager has seen the request yet.
        """

    @property
    def lora(self) -> tuple[str, str] | None:
        """Name and path of the adapter."""

    @property
    def mm_items(self) -> list[MultimodalItem]:
        """The multimodal items, by rising offset."""

    @property
    def cache_salt(self) -> str | None: ...

    @property
    def retention(self) -> Retention | None:
        """How its pages are to be kept, or None."""

    def __repr__(self) -> str: ...

def sha256(data: bytes) -> bytes:
    """
    Computes the SHA-256 digest of ``data``.

    Args:
      data: The message, of any length.

    Returns:
      32 bytes, as ``hashlib.sha256(data).digest()`` gives them.

    Example:
      >>> sha256(b"abc").hex()[:8]
      'ba7816bf'
    """

def xxh3_128(data: bytes) -> bytes:
    """
    Computes the XXH3 digest of 128 bits of ``data``.

    Args:
      data: The message, of any length.

    Returns:
      16 bytes, as ``xxhash.xxh3_128_digest(data)`` gives them.

    Example:
      >>> xxh3_128(b"abc").hex()[:8]
      '06b05ab6'
    """

def hash_algorithms() -> list[str]:
    """Names of the hash algorithms, the default first."""

def none_hash(seed: str = 'vllm-none-hash', *, algorithm: str = 'sha256_cbor') -> bytes:
    """
    Computes the parent digest of a first page.

    Args:
      seed: Caches with different seeds share nothing. The default is vLLM's.
      algorithm: One of ``hash_algorithms()``.

    Returns:
      The algorithm's digest of ``seed``: 32 bytes, or 16.

    Raises:
      ValueError: If ``algorithm`` is unknown.

    Example:
      >>> none_hash().hex()[:8]
      '9bd96a48'
    """

def hash_page(parent: bytes, tokens: object, extra: bytes | None = None, *, algorithm: str = 'sha256_cbor') -> bytes:
    """
    Computes the digest of a full page.

    Args:
      parent: Digest of the page before; ``none_hash()`` for the first page.
      tokens: int32, shape ``[page_size]``, or a sequence of ints in the range of int32.
      extra: Canonical CBOR of the page's extra keys. ``None`` or empty if it has none.
      algorithm: One of ``hash_algorithms()``.

    Returns:
      32 bytes, or 16: the digest of ``(parent, tokens, extra keys or None)``.

    Raises:
      ValueError: If ``algorithm`` is unknown, or takes no extra keys and gets some, if ``parent`` is
        not a digest of it, or if a token does not fit in int32.
      TypeError: If ``tokens`` are not integers in one dimension.

    Example:
      >>> hash_page(none_hash(), range(1000, 1016)).hex()[:8]
      '15528b72'
    """

class PageHasher:
    """
    How a cache names the content of its pages.

    All who share a cache must agree on it. Algorithms: ``sha256_cbor``, bit-identical to vLLM's;
    ``sha256``, vLLM's too, only without extra keys; ``xxh3_128_cbor`` and ``xxh3_128``, vLLM's
    ``xxhash_cbor`` and ``xxhash``, faster, for tenants who trust each other; ``pagedkv``, our own, the
    fastest of the strong ones; ``pagedkv_xxh3``, the fastest, for tenants who trust each other.
    """

    def __init__(self, algorithm: str = 'sha256_cbor', seed: str | None = None) -> None:
        """
        Args:
          algorithm: One of ``hash_algorithms()``.
          seed: Caches with different seeds share nothing. vLLM's default if None.

        Raises:
          ValueError: If ``algorithm`` is unknown.
        """

    @property
    def algorithm(self) -> str: ...

    @property
    def digest_bytes(self) -> int:
        """Bytes of a digest: 32 or 16."""

    @property
    def root(self) -> bytes:
        """The parent of a first page."""

    def page_hashes(self, request: Request, page_size: int) -> Annotated[NDArray[numpy.uint8], dict(shape=(None, None))]:
        """
        Hashes the full pages of ``request``: for routers and shared stores.

        Incremental: pages hashed before with the same hasher and page size are not hashed again.

        Args:
          request: Its tokens and extra keys decide the digests.
          page_size: Tokens a page holds.

        Returns:
          A fresh uint8 array, shape ``[num_tokens // page_size, digest_bytes]``.

        Raises:
          ValueError: If ``page_size`` is below 1, or for extra keys that the algorithm does not take.
          RuntimeError: If another thread hashes ``request``.

        Example:
          >>> digests = PageHasher().page_hashes(Request("a", range(1000, 1033)), page_size=16)
          >>> digests.shape, digests[0].tobytes().hex()[:8]
          ((2, 32), '15528b72')
        """

    def __eq__(self, other: object, /) -> bool: ...

    def __hash__(self) -> int: ...

    def __repr__(self) -> str: ...

class PagesStored:
    """
    Pages that follow each other in one request, and can be found from now on in their shard.
    """

    @property
    def digests(self) -> Annotated[NDArray[numpy.uint8], dict(shape=(None, None))]:
        """Their digests: uint8, shape ``[pages, bytes]``."""

    @property
    def num_pages(self) -> int: ...

    @property
    def group(self) -> int:
        """Whose pages: a group of layers."""

    @property
    def shard(self) -> int:
        """The data-parallel shard of the pages."""

    @property
    def parent_digest(self) -> bytes | None:
        """
        Digest of the page before the first one; None if there is none, or nobody knows.
        """

    @property
    def tokens(self) -> NDArray[numpy.int32]:
        """
        Their tokens: int32, shape ``[pages * page_size]``. Empty if nobody knows: for content that was restored
        from a snapshot, or stored before events were on.
        """

    @property
    def page_size(self) -> int:
        """Tokens of a page; 0 if nobody knows what is in them."""

    @property
    def lora_name(self) -> str | None:
        """The adapter of the request, or None."""

    @property
    def extra_keys(self) -> list[tuple[tuple[object, ...], ...] | None] | None:
        """
        What besides tokens decides their content, one entry a page, as vLLM has it: ``("lora", name, path)``,
        ``("mm", identifier, offset - start)``, ``("cache_salt", salt)``, ``("prompt_embeds", digest)``. None if
        the request has none.
        """

    def __repr__(self) -> str: ...

class PagesRemoved:
    """
    Pages whose content cannot be found any more in their shard, in the order in which they went.
    """

    @property
    def digests(self) -> Annotated[NDArray[numpy.uint8], dict(shape=(None, None))]:
        """Their digests: uint8, shape ``[pages, bytes]``."""

    @property
    def num_pages(self) -> int: ...

    @property
    def group(self) -> int:
        """Whose pages: a group of layers."""

    @property
    def shard(self) -> int:
        """The data-parallel shard of the pages."""

    def __repr__(self) -> str: ...

class PagesCleared:
    """No content can be found any more, in any group and shard."""

    def __repr__(self) -> str: ...

class CacheManager:
    """
    Decides which page every token of every request lives in.

    A request's life: ``match`` finds the longest cached prefix, ``allocate`` takes it and makes room
    for the tokens of the next step, ``commit`` says that their K/V is computed (only now can others
    find it), and so on; ``free`` gives the pages back. The manager keeps a reference to each request
    that holds pages.

    Not thread-safe: a call that another thread's call is in the way of raises RuntimeError. Counters and
    tables may be read at any time. Deterministic: the same calls give the same page ids. A call that raises, and an
    ``allocate`` that returns False, leave everything as it was.
    """

    def __init__(self, num_pages: int, kv_cache_groups: Sequence[CacheGroupSpec], max_model_len: int, enable_caching: bool = True, use_eagle: bool = False, *, hash_algorithm: str = 'sha256_cbor', hash_seed: str | None = None, hash_page_size: int | None = None, data_parallel_size: int = 1, as_easydel: bool = False, deduplicate: bool = False, free_order: str = 'lru', prefer_contiguous: bool = False) -> None:
        """
        Makes an empty cache.

        Args:
          num_pages: Pages of the pool, the null page among them.
          kv_cache_groups: Groups of layers, of any mix of attention types and page sizes; all share the
            pool, each has its own page tables.
          max_model_len: Most tokens a request may have.
          enable_caching: Whether requests find each other's pages.
          use_eagle: Leave the last ``prefix_unit`` tokens of every hit to be computed again, for draft heads
            that need the hidden states of the last tokens (EAGLE).
          hash_algorithm: How pages are named, one of ``hash_algorithms()``; see ``PageHasher``.
          hash_seed: Caches with different seeds share nothing. vLLM's default if None.
          hash_page_size: Tokens of the pages that requests are hashed in. If None, the largest that divides
            every group's page size.
          data_parallel_size: Shards of the pool: contiguous ranges of page ids of equal size.
          as_easydel: Give the same pages as EasyDeL 0.3.0, one by one, also where that is more than needed.
          deduplicate: ``commit`` lets go of a page whose content another page holds already, in favour of
            that one. Otherwise requests that compute the same prefix at the same time keep a copy each, and
            page tables only ever grow (as vLLM's do).
          free_order: Which free pages are allocated first: "lru", those that were given back first, or
            "uncached_first", those without content first, as in vLLM.
          prefer_contiguous: Give the pages of each call in rising order, and take pages right after a
            request's last where those are free and without content. Rows then have fewer contiguous runs.

        Raises:
          ValueError: If a size is below 1, ``data_parallel_size`` does not divide ``num_pages``, there are no groups, ``hash_page_size`` does not divide every
            group's page size, slots (``num_pages * page_size``) do not fit in int32, the algorithm or the
            order is unknown, or ``as_easydel`` is given with another order or ``prefer_contiguous``.

        Example:

            >>> spec = FullAttentionSpec(page_size=4, num_kv_heads=1, head_size=64, dtype="bfloat16")
            >>> manager = CacheManager(16, [CacheGroupSpec(spec)], max_model_len=64)
            >>> first = Request("first", range(10))
            >>> manager.allocate(first, 10), manager.page_ids(first).tolist()
            (True, [1, 2, 3])
            >>> manager.commit(first, 10)
            False
            >>> second = Request("second", range(10))
            >>> manager.match(second)
            8
            >>> manager.allocate(second, 2, num_cached_tokens=8), manager.page_ids(second).tolist()
            (True, [1, 2, 4])
        """

    def add_requests(self, requests: list[Request]) -> NDArray[numpy.int64]:
        """
        Gives each of a list of `Request` a handle, for the calls that take a whole step.

        The manager keeps a reference to them until ``remove_requests``.

        Returns:
          int64, shape ``[len(requests)]``.

        Raises:
          TypeError: If one is not a `Request`.
          ValueError: If one has a handle already. Then none has got one.
        """

    def remove_requests(self, handles: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | Sequence[int]) -> None:
        """
        Takes the pages of requests back, and forgets them. Their handles are refused from now on.

        Raises:
          ValueError: If a handle is of no request, or there twice; or if a request holds pages of another
            manager. Then nothing is done.
        """

    def match_requests(self, handles: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | Sequence[int], *, dp_shards: object | None = None) -> NDArray[numpy.int32]:
        """
        As ``match`` for each: how many tokens of its prefix are cached. int32, shape ``[len(handles)]``.

        Prompts are hashed two at a time. Long ones are hashed and looked up without Python's lock.

        Args:
          handles: int64 ``[n]``, or a list, from ``add_requests``.
          dp_shards: int32 ``[n]``: the data-parallel shard in which each is looked for, -1 for anywhere.

        Raises:
          ValueError: As ``match``; if there is not one shard a request; if a handle is of no request, or
            there twice.
          IndexError: If a shard is none.
        """

    def match_shards(self, handles: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | Sequence[int]) -> NDArray[numpy.int32]:
        """
        How many tokens of each request's prefix are cached in each data-parallel shard.

        For schedulers that choose the shard that holds most: int32, shape
        ``[len(handles), data_parallel_size]``.

        Raises:
          ValueError: As ``match_requests``.
        """

    def max_pages_per_request(self, num_tokens: int, *, max_new_tokens: int, num_lookahead_tokens: int = 0, num_encoder_tokens: int = 0) -> int:
        """
        Most pages that a request holds at a time, in all groups, until ``num_tokens`` tokens are computed.

        One that has the pool to itself, and as many pages, always gets room: a scheduler can refuse, before it
        takes a request on, what would never finish.

        Args:
          num_tokens: Prompt and longest answer: 1 to ``max_model_len``.
          max_new_tokens: Most tokens of a step.
          num_lookahead_tokens: Draft tokens of a step.
          num_encoder_tokens: Tokens of the encoder's output.

        Raises:
          ValueError: If a number is out of range.
        """

    def allocate_step(self, handles: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | Sequence[int], num_new_tokens: object, *, num_cached_tokens: object | None = None, num_lookahead_tokens: int = 0, dp_shards: object | None = None, watermark_pages: int = 0, full_sequence_must_fit: bool = False) -> StepGrant:
        """
        As ``allocate`` for each in turn, up to the first that does not fit.

        A request whose cached prefix is gone, because one before it has taken the pages, does not fit.

        Args:
          handles: int64 ``[n]``, or a list, from ``add_requests``.
          num_new_tokens: int32 ``[n]``, each at least 1.
          num_cached_tokens: int32 ``[n]``; 0 for each if None.
          num_lookahead_tokens: Draft tokens of each.
          dp_shards: int32 ``[n]``: the shard that each gets pages from, -1 for anywhere.
          watermark_pages: As in ``allocate``, of the requests that hold no pages yet.
          full_sequence_must_fit: As in ``allocate``, of the requests that hold no pages yet.

        Returns:
          How many have room, and the pages that were added.

        Raises:
          ValueError: As ``allocate``; if there is not one count a request; if a handle is of no request, or
            there twice. Then nothing is done.
        """

    def commit_step(self, handles: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | Sequence[int], num_new_tokens: object) -> NDArray[numpy.int32] | None:
        """
        As ``commit`` for each, of ``num_new_tokens[i]`` tokens after those computed already.

        Args:
          handles: int64 ``[n]``, or a list, from ``add_requests``.
          num_new_tokens: int32 ``[n]``, each >= 0.

        Returns:
          In a manager with ``deduplicate``, positions of the requests whose page table rows changed: int32,
          rising. None in others, where no row changes.

        Raises:
          ValueError: As ``commit``; if there is not one count a request; if a handle is of no request, or
            there twice. Then nothing is done.
        """

    def append_tokens(self, handles: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | Sequence[int], tokens: object) -> None:
        """
        Appends ``tokens[i]``, int32 ``[n]``, to each request.

        Raises:
          ValueError: If there is not one token a request; if a handle is of no request, or there twice.
        """

    def truncate_requests(self, handles: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | Sequence[int], num_tokens: object) -> None:
        """
        As ``Request.truncate`` for each, to ``num_tokens[i]`` tokens, int32 ``[n]``: takes off draft tokens
        that were rejected.

        Raises:
          ValueError: As ``truncate``; if there is not one count a request; if a handle is of no request, or
            there twice. Then nothing is done.
        """

    def free_requests(self, handles: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | Sequence[int]) -> None:
        """
        As ``free`` for each in turn that holds pages. They keep their handles.

        Raises:
          ValueError: If a handle is of no request, or there twice; or if a request holds pages of another
            manager. Then nothing is done.
        """

    def next_tokens(self, handles: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | Sequence[int], num_tokens: object) -> NDArray[numpy.int32]:
        """
        The next ``num_tokens[i]`` tokens of each request after its computed ones, back to back.

        Args:
          handles: int64 ``[n]``, or a list, from ``add_requests``.
          num_tokens: int32 ``[n]``, each >= 0.

        Returns:
          A fresh int32 array, shape ``[sum(num_tokens)]``: a token for each slot of ``slot_mapping``.

        Raises:
          ValueError: If a request has fewer tokens; if there is not one count a request; if a handle is of no
            request, or there twice.
        """

    @overload
    def slot_mapping(self, handles: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | Sequence[int], num_tokens: object, group: int = 0) -> NDArray[numpy.int32]:
        """As with a list of requests, of requests with handles: int64 ``[n]``."""

    @overload
    def slot_mapping(self, requests: Sequence[Request], num_tokens: object, group: int = 0) -> NDArray[numpy.int32]:
        """
        Where the K/V of the next tokens goes: ``page_id * page_size + offset`` of each.

        For each request in turn, the slots of the ``num_tokens[i]`` tokens after its computed ones.

        Args:
          requests: Each holds pages.
          num_tokens: Integers, shape ``[len(requests)]``, each >= 0.
          group: Whose pages.

        Returns:
          A fresh int32 array, shape ``[sum(num_tokens)]``.

        Raises:
          ValueError: If there is not one count a request, or no room for that many tokens.
          IndexError: If ``group`` is not a group.
        """

    @overload
    def page_table(self, handles: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | Sequence[int], width: int | None = None, group: int = 0) -> NDArray[numpy.int32]:
        """As with a list of requests, of requests with handles: int64 ``[n]``."""

    @overload
    def page_table(self, requests: Sequence[Request], width: int | None = None, group: int = 0) -> NDArray[numpy.int32]:
        """
        Page ids of a batch: row ``i`` holds those of ``requests[i]``, padded with 0, the null page.

        Args:
          requests: Each holds pages.
          width: Columns; the longest row's length if None.
          group: Whose pages.

        Returns:
          A fresh int32 array, shape ``[len(requests), width]``.

        Raises:
          ValueError: If a request holds no pages, or more than ``width``.
          IndexError: If ``group`` is not a group.
        """

    def fork(self, parent: Request, child: Request) -> list[NDArray[numpy.int32]] | None:
        """
        Lets ``child`` go on from the computed tokens of ``parent``: for beam search, and for several answers
        to one prompt.

        Both hold the pages that are final. Of a page that is written to again (one that is not full, or the
        state of a state-space layer) the child gets one of its own, and the content is to be copied. Nothing
        is computed or hashed again, and caching need not be on.

        Args:
          parent: Holds pages, and has computed tokens. Tokens computed now cannot be truncated any more.
          child: Holds no pages. Begins with the computed tokens of ``parent``, and has its extra keys:
            ``parent.copy(request_id)``, for example.

        Returns:
          For each group the pages to copy before the next step of either request: int32 ``[n, 2]``, source
          and target. None if too few pages are free: then nothing is done.

        Raises:
          ValueError: If ``parent`` holds no pages or has no computed tokens; if ``child`` holds pages, begins
            with other tokens, or has other extra keys or another number of encoder tokens.

        Example:

            >>> spec = FullAttentionSpec(page_size=4, num_kv_heads=1, head_size=64, dtype="bfloat16")
            >>> manager = CacheManager(16, [CacheGroupSpec(spec)], max_model_len=64)
            >>> parent = Request("parent", range(10))
            >>> manager.allocate(parent, 10), manager.commit(parent, 10)
            (True, False)
            >>> child = parent.copy("child")
            >>> [pairs.tolist() for pairs in manager.fork(parent, child)]
            [[[3, 4]]]
            >>> manager.page_table([parent, child]).tolist()
            [[1, 2, 3], [1, 2, 4]]
        """

    def fork_requests(self, parents: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | Sequence[int], children: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | Sequence[int]) -> StepFork:
        """
        As ``fork`` of ``children[i]`` from ``parents[i]``, in turn, up to the first that does not fit.

        Args:
          parents: int64 ``[n]``, from ``add_requests``. One may be there more than once.
          children: int64 ``[n]``, from ``add_requests``.

        Raises:
          ValueError: As ``fork``; if there is not one parent a child; if a handle is of no request, or a
            child there twice. Then nothing is done.
        """

    def match(self, request: Request, *, dp_shard: int | None = None) -> int:
        """
        Tokens of the longest prefix of ``request`` that is cached in every group, as far as each needs it.

        A multiple of ``prefix_unit``, and less than ``request.num_tokens``: one token is left to compute the
        next from. 0 for a request that holds pages. Holds nothing: the pages may go until ``allocate``.
        Long prompts are hashed and looked up without Python's lock.

        Args:
          request: Holds no pages yet.
          dp_shard: Only pages of this data-parallel shard count; all do if None.

        Raises:
          ValueError: If the request has extra keys that the hash algorithm does not take.
          IndexError: If ``dp_shard`` is not a shard.
          RuntimeError: If another thread uses the manager or the request.
        """

    def allocate(self, request: Request, num_new_tokens: int, *, num_cached_tokens: int = 0, num_lookahead_tokens: int = 0, dp_shard: int | None = None, watermark_pages: int = 0, full_sequence_must_fit: bool = False) -> bool:
        """
        Makes room for ``num_new_tokens`` tokens after those computed, and for draft tokens after those.

        Pages that a group needs no more are given back first: those a sliding window has left behind, those
        of earlier chunks, states that were replaced. The null page, 0, stands for them in page tables.

        The first call of a request takes the first ``num_cached_tokens`` of its prefix from the cache, as
        ``match`` found them; they count as computed.

        Args:
          request: Holds pages of this manager, or none.
          num_new_tokens: At least 1. With the computed tokens at most ``request.num_tokens``, and at most
            ``max_model_len``.
          num_cached_tokens: What ``match`` gave, or a smaller multiple of ``prefix_unit`` that is cached
            as well. 0 for a request that holds pages.
          num_lookahead_tokens: Draft tokens, which the request need not have yet, as far as
            ``max_model_len`` allows.
          dp_shard: Where new pages come from; anywhere if None. A request stays in the shard that its
            pages are in, whatever is given here.
          watermark_pages: Pages that must stay free if the request takes any: when a new request is let
            in, what the running ones are going to need.
          full_sequence_must_fit: Return False unless all tokens of the request would fit now, as far as each
            group keeps them, though room is made for the new ones alone (the idea is vLLM's).

        Returns:
          False if too few pages are free: then nothing is done.

        Raises:
          ValueError: If a count is out of range, if the prefix is no longer cached, or if the request
            holds pages of another manager.
          IndexError: If ``dp_shard`` is not a shard.
        """

    def commit(self, request: Request, num_computed_tokens: int) -> bool:
        """
        Says that the K/V of the first ``num_computed_tokens`` tokens is in the pages.

        Call it when the step that computes them is launched, before anything that reads the pages is: from
        now on other requests find the full pages.

        Returns:
          Whether a row of the page table has changed, which it may in a manager with ``deduplicate``.

        Raises:
          ValueError: If the request holds no pages, has no room for that many tokens, or has more computed.
        """

    @overload
    def free(self, request: Request) -> None:
        """
        Gives all pages of ``request`` back; its last page is evicted first.

        Raises:
          ValueError: If the request holds no pages: freed twice, or never allocated.
        """

    @overload
    def free(self, request: object) -> None:
        """
        Gives all pages of a scheduler's own request back. Does nothing if it holds none.
        """

    def page_ids(self, request: Request, group: int = 0) -> NDArray[numpy.int32]:
        """
        The pages of ``request`` in order: int32, shape ``[pages]``.

        Raises:
          ValueError: If the request holds no pages.
          IndexError: If ``group`` is not a group.
        """

    def num_allocated_tokens(self, request: Request) -> int:
        """Tokens that ``request`` was given room for; 0 if it holds no pages."""

    def num_common_prefix_pages(self, request: Request, num_requests: int, group: int = 0) -> int:
        """
        Leading pages of ``request`` that at least ``num_requests`` requests hold.

        0 in groups that do not read their whole prefix.

        Raises:
          ValueError: If the request holds no pages, or ``num_requests`` is below 1.
          IndexError: If ``group`` is not a group.
        """

    @property
    def num_pages(self) -> int:
        """All pages, the null page among them."""

    @property
    def num_free_pages(self) -> int: ...

    @property
    def num_cached_pages(self) -> int:
        """Pages whose content can be found, held or free, duplicates included."""

    @property
    def num_evictions(self) -> int:
        """Times a page lost its content because it was handed out again."""

    @property
    def data_parallel_size(self) -> int:
        """Shards of the pool: contiguous ranges of page ids of equal size."""

    @property
    def page_pool(self) -> PagePoolView:
        """The pool, to look at."""

    @property
    def num_groups(self) -> int: ...

    @property
    def num_requests(self) -> int:
        """Requests that hold pages."""

    @property
    def page_size(self) -> int:
        """Tokens a page of the first group holds."""

    @property
    def page_sizes(self) -> list[int]:
        """Tokens a page holds, of each group."""

    @property
    def hash_page_size(self) -> int:
        """
        Tokens of the pages that requests are hashed in: divides every group's page size.
        """

    @property
    def prefix_unit(self) -> int:
        """
        What every shared prefix is a multiple of, in tokens: the page size, if all groups have one.
        """

    @property
    def use_eagle(self) -> bool: ...

    @property
    def max_model_len(self) -> int: ...

    @property
    def hasher(self) -> PageHasher:
        """How pages are named."""

    @property
    def enable_caching(self) -> bool: ...

    @property
    def usage(self) -> float:
        """
        Share of the pages that is not free, from 0 to 1. The null page counts as used.
        """

    def reset_prefix_cache(self) -> bool:
        """
        Forgets all cached content. Returns False and does nothing while a request or a pin holds pages.
        """

    def check_invariants(self) -> None:
        """Raises RuntimeError naming what does not hold. For tests."""

    def pin(self, request: Request) -> int:
        """
        Keeps the pages of ``request`` that others can find, its committed full pages, from being evicted.

        They stay when the request has gone, until ``unpin``. Pinned pages are not free: fewer are left to
        allocate from. ``reset_prefix_cache`` refuses while there are pins.

        Returns:
          A number for ``unpin``. A request may be pinned more than once.

        Raises:
          ValueError: If the request holds no pages of this manager, or none that can be found.
        """

    def unpin(self, pin: int) -> None:
        """
        Lets the pages of a pin go: they are the warmest then, the last of them evicted first.

        Raises:
          ValueError: If there is no such pin (any more).
        """

    @property
    def num_pinned_pages(self) -> int:
        """Distinct pages that pins hold."""

    def advance_time(self, now: int) -> None:
        """
        Tells the time, in any unit, for the ``ttl`` of retentions. It starts at 0.

        A time limit counts from when a page was given back by the last that held it. Pages whose time has
        run out are from now on as if they had been given back on the default priority. The manager reads no
        clock: a coarse unit costs less, since pages given back at one time run out together.

        Raises:
          ValueError: If ``now`` is less than before.
        """

    @property
    def now(self) -> int:
        """The latest time given to ``advance_time``."""

    def set_tenant_quota(self, tenant: int, max_pages: int | None) -> None:
        """
        How many pages a tenant may have before it is evicted from first. It never makes a call fail.

        Counted are pages that its requests were given, until they lose their content, and not those that
        they found in the cache. While a tenant has more, its free pages go before all others; one that has
        as many gives up its own free pages for new ones.

        Args:
          tenant: As in `Retention`.
          max_pages: At least 0; None for no quota.

        Raises:
          ValueError: If one is out of range.
        """

    def num_tenant_pages(self, tenant: int) -> int:
        """
        Pages held for a tenant, and free ones with content that it brought in.

        Raises:
          ValueError: If ``tenant`` is negative.
        """

    def get_computed_pages(self, request: object, *, dp_shard_hint: int | None = None, data_parallel_size: int | None = None) -> tuple[CachePages, int]:
        """
        The longest prefix of a scheduler's own request that is cached, and how many tokens it has.

        Like ``match``, for request objects of any class. What is read of them: ``request_id``,
        ``num_tokens``, ``all_token_ids`` by slices (only what is new), and if they have them
        ``sampling_params.prompt_logprobs``, ``has_vision`` with ``mm_features``, ``cache_salt``,
        ``lora_request``.

        Args:
          request: Anything with those attributes. One and the same object only ever gets more tokens, until
            ``free_page_hashes``.
          dp_shard_hint: Only pages of this data-parallel shard count.
          data_parallel_size: Shards of the pool. Without effect if it does not divide ``num_pages``.

        Returns:
          The pages and their tokens, fewer than ``num_tokens``. None and 0 if caching is off, or if the
          request wants log-probabilities of its prompt.

        Raises:
          AttributeError, TypeError, ValueError: If an attribute is missing or is not what it should be.
        """

    def allocate_slots(self, request: object, num_new_tokens: int, num_new_computed_tokens: int = 0, new_computed_pages: CachePages | None = None, num_lookahead_tokens: int = 0, delay_cache_pages: bool = False, dp_shard_hint: int | None = None, data_parallel_size: int | None = None) -> CachePages | None:
        """
        Makes room for the next tokens of a scheduler's own request, and says where.

        Room for tokens past ``max_model_len`` is not made. Pages that get full are found by others from now
        on: run the step before any step that reads them.

        Args:
          request: As in ``get_computed_pages``, with ``num_computed_tokens``.
          num_new_tokens: At least 1; need not be known yet.
          num_new_computed_tokens: Of a request without pages: what ``get_computed_pages`` said, or tokens
            that somebody else computes.
          new_computed_pages: The pages that go with them, from the cache.
          num_lookahead_tokens: Draft tokens after the new ones.
          delay_cache_pages: Let ``cache_pages`` show the pages to others, later.
          dp_shard_hint: Where new pages come from, if the request has none in another shard.
          data_parallel_size: As in ``get_computed_pages``.

        Returns:
          The new pages alone, or None if too few are free: then nothing has happened but that pages the
          request needs no more were given back.

        Raises:
          ValueError: If a count is out of range, or ``new_computed_pages`` are not a prefix of the request
            (any more).
          AttributeError, TypeError: If an attribute is missing or is not what it should be.
        """

    def cache_pages(self, request: object, num_computed_tokens: int) -> None:
        """
        Lets others find the pages that the first ``num_computed_tokens`` tokens of a scheduler's own request
        fill.

        Raises:
          ValueError: If the request holds no pages, or has no room for that many tokens, or not as many.
        """

    def free_page_hashes(self, request: object) -> None:
        """
        Forgets what is known of a scheduler's own request, once it has finished.
        """

    def get_page_ids(self, request_id: str) -> tuple[list[int], ...]:
        """
        The pages of a request: a tuple of lists, one a group; empty ones if it holds none.
        """

    def get_num_common_prefix_pages(self, request: object, num_scheduled_requests: int) -> list[int]:
        """
        How many leading pages of the request are held by that many requests, for each group.

        0 for groups that do not read their whole prefix, and if caching is off.

        Raises:
          ValueError: If the request has a ``status`` that is not RUNNING, or the number is below 1.
        """

    def create_empty_page_list(self) -> CachePages:
        """Empty lists of pages, one a group."""

    def stats(self) -> ManagerStats:
        """
        What is held now, and what has happened since the manager was made. O(1).
        """

    def assert_no_leaks(self) -> None:
        """
        For tests of engines: when all requests are done, none may hold pages.

        Raises:
          AssertionError: If one does, naming it and the number of its pages.
        """

    def snapshot(self) -> bytes:
        """
        All cached content by its digests, and the order of eviction, as bytes for ``restore``.

        The contents of the page tensors are not among it: save them too, or keep them. Pages that requests
        hold count as if every request was freed now. docs/snapshots.md has the format. O(pages).
        """

    def restore(self, snapshot: bytes) -> None:
        """
        Makes findable what was cached when ``snapshot`` was made, with the same order of eviction.

        The page tensors must have in each page what they had then. The number of shards may be another one.

        Raises:
          ValueError: If the bytes are no snapshot, damaged, or of another version; if it was made with other
            ``num_pages``, groups, hash algorithm, seed or ``hash_page_size``; if caching is off, or anything
            is held or cached here. Then nothing is done.

        Example:

            >>> spec = FullAttentionSpec(page_size=4, num_kv_heads=1, head_size=64, dtype="bfloat16")
            >>> before, after = (CacheManager(16, [CacheGroupSpec(spec)], max_model_len=64) for _ in range(2))
            >>> request = Request("a", range(10))
            >>> before.allocate(request, 10)
            True
            >>> before.commit(request, 10)
            False
            >>> after.restore(before.snapshot())
            >>> after.match(Request("b", range(10)))
            8
        """

    def page_map(self) -> PageMap:
        """
        Who has which page now. O(pages).

        Example:

            >>> spec = FullAttentionSpec(page_size=4, num_kv_heads=1, head_size=64, dtype="bfloat16")
            >>> manager = CacheManager(6, [CacheGroupSpec(spec)], max_model_len=64)
            >>> manager.allocate(Request("a", range(10)), 10)
            True
            >>> manager.page_map().ref_counts.tolist()
            [0, 1, 1, 1, 0, 0]
        """

    def inspect(self) -> pagedkv.inspection.PoolPicture:
        """
        A picture of the pool: pages by state, a map of all pages, and who shares what with whom.

        It shows itself as text when it is printed, in colours where rich prints it, and as SVG in a
        notebook. A copy: it does not change. O(pages).
        """

    def start_recording(self, path: str | os.PathLike[str], *, flush_each_record: bool = False) -> None:
        """
        Writes every call that changes the manager, or answers from what it holds, to a file from now on, with
        its answer. ``replay_ops`` makes the calls again.

        The calls of schedulers' own requests and of whole steps are written as the calls that they are made
        of. Calls that are refused before they reach the manager's core leave no trace: they do nothing.

        Args:
          path: Begun anew if it is there.
          flush_each_record: Hand each record to the system at once, so that none is lost if the process
            crashes, the call that it crashed in included. Else up to some KiB of the last ones are.

        Raises:
          ValueError: Unless the manager is as new: nothing held or cached, and pages in their first order. If
            it is recorded already.
          OSError: If the file cannot be written.
        """

    def stop_recording(self) -> int:
        """
        Ends the recording.

        Returns:
          The number of calls that were recorded.

        Raises:
          ValueError: If the manager is not recorded.
          OSError: If not all could be written.
        """

    @property
    def is_recording(self) -> bool:
        """Whether the calls are written to a file."""

    def start_events(self, *, max_pages: int = 1048576) -> None:
        """
        Notes from now on which content can be found and which cannot any more, for `take_events`. The first
        events say what can be found now. While events are off, nothing is noted, and nothing costs anything.

        Content of which a shard has several pages counts once: stored when the first page comes, removed when
        the last one goes. So the events that were taken add up to what ``match`` can find.

        Args:
          max_pages: At least 1. If more pages are noted and not taken, the notes are dropped, and the next
            ``take_events`` begins anew: `PagesCleared`, then all that can be found, without tokens.

        Raises:
          ValueError: If events are on already, or ``max_pages`` is below 1.
        """

    def stop_events(self) -> None:
        """
        Notes nothing any more, and drops what was not taken.

        Raises:
          ValueError: If events are off.
        """

    def take_events(self) -> list[PagesStored | PagesRemoved | PagesCleared]:
        """
        What has happened to the cached content since the last call, in order. Pages that were stored or removed
        after each other are one event, and its arrays are made when they are asked for.

        Raises:
          ValueError: If events are off.

        Example:

            >>> spec = FullAttentionSpec(page_size=4, num_kv_heads=1, head_size=64, dtype="bfloat16")
            >>> manager = CacheManager(16, [CacheGroupSpec(spec)], max_model_len=64)
            >>> manager.start_events()
            >>> request = Request("a", range(10))
            >>> manager.allocate(request, 10), manager.commit(request, 10)
            (True, False)
            >>> stored, = manager.take_events()
            >>> stored, stored.tokens.tolist()
            (PagesStored(num_pages=2, group=0, shard=0, page_size=4), [0, 1, 2, 3, 4, 5, 6, 7])
        """

    @property
    def has_events_on(self) -> bool:
        """Whether changes of the cached content are noted for ``take_events``."""

    @property
    def kv_cache_specs(self) -> list[CacheSpec]:
        """What the layers of each group keep, in a fresh list."""

    def start_residency(self, *, sample_rate: float = 0.01, bounds: Sequence[int]) -> None:
        """
        Measures from now on, on a sample of the pages that are handed out, how long they keep their content and
        how often it is used. The measures are those of vLLM's KV cache residency metrics. Time is what
        ``advance_time`` was told last. The sample depends on the calls alone, so runs can be repeated.

        Args:
          sample_rate: Share of the pages to watch, more than 0 and at most 1.
          bounds: Of the buckets of the histograms: integers in the unit of ``advance_time``, rising, from 0 on.

        Raises:
          ValueError: If an argument is out of range, or pages are measured already.
        """

    @property
    def residency(self) -> ResidencyStats | None:
        """What was measured so far, a copy; None before ``start_residency``."""

class StepGrant:
    """What the requests of a step were given."""

    @property
    def num_requests(self) -> int:
        """The first so many requests have room; nothing was done for the others."""

    @property
    def changed_rows(self) -> NDArray[numpy.int32]:
        """
        Positions of the requests whose page table rows changed in any group: int32, rising.
        """

    def new_page_ids(self, group: int = 0) -> NDArray[numpy.int32]:
        """
        Pages that were added to the rows, those of cached prefixes among them: int32 ``[n]``.
        """

    def new_page_offsets(self, group: int = 0) -> NDArray[numpy.int32]:
        """
        Where each request's are in ``new_page_ids``: those of request ``i`` are from entry ``i`` on to before
        entry ``i + 1``. int32 ``[num_requests + 1]``.
        """

class StepFork:
    """What the children of a step's forks were given."""

    @property
    def num_requests(self) -> int:
        """
        The first so many children were forked; nothing was done for the others.
        """

    def page_copies(self, group: int = 0) -> NDArray[numpy.int32]:
        """
        Pages to copy before the next step of parents or children: int32 ``[n, 2]``, source and target.
        """

class ManagerStats:
    """
    What a `CacheManager` holds now, and what has happened since it was made. A copy: it does not change.

    ``num_pages_allocated + num_pages_reused - num_pages_freed == num_held_pages``.
    """

    @property
    def num_held_pages(self) -> int:
        """Pages that a request holds now."""

    @property
    def peak_held_pages(self) -> int:
        """Most pages that were held at a time."""

    @property
    def num_requests(self) -> int:
        """Requests that hold pages now."""

    @property
    def peak_requests(self) -> int:
        """Most requests that held pages at a time."""

    @property
    def num_pages_allocated(self) -> int:
        """Times a free page was handed out empty."""

    @property
    def num_pages_reused(self) -> int:
        """Times a free page was held again for what it contains: a hit."""

    @property
    def num_pages_freed(self) -> int:
        """Times the last holder gave a page back."""

    @property
    def num_pages_cached(self) -> int:
        """Times a page was made findable by the request that computed it."""

    @property
    def num_pages_evicted(self) -> int:
        """Times a page lost its content because it was handed out again."""

    @property
    def num_failed_allocations(self) -> int:
        """Times that too few pages were free: ``allocate`` returned False."""

    @property
    def num_admitted(self) -> int:
        """
        Times that a request was given its first pages, forks aside. One that was preempted counts again when it comes back.
        """

    @property
    def num_query_tokens(self) -> int:
        """Tokens that those requests had, if caching is on."""

    @property
    def num_hit_tokens(self) -> int:
        """Tokens of those that came from the prefix cache."""

    def __repr__(self) -> str: ...

class PageMap:
    """
    Who has which page of a `CacheManager`. A copy: it does not change.

    Arrays are fresh ones each time they are asked for.
    """

    @property
    def ref_counts(self) -> NDArray[numpy.int32]:
        """int32, shape ``[num_pages]``: requests and pins that hold each page."""

    @property
    def num_pins(self) -> NDArray[numpy.int32]:
        """int32, shape ``[num_pages]``: pins among these."""

    @property
    def is_cached(self) -> NDArray[numpy.int32]:
        """
        int32, shape ``[num_pages]``: 1 if the content of the page can be found, else 0.
        """

    @property
    def groups(self) -> NDArray[numpy.int32]:
        """
        int32, shape ``[num_pages]``: the group of the page's content, or of the requests that hold it; -1 of others.
        """

    @property
    def request_ids(self) -> list[str]:
        """Requests that hold pages, a fresh list."""

    @property
    def held_starts(self) -> NDArray[numpy.int64]:
        """
        int64, shape ``[requests + 1]``: request ``i`` holds ``held_pages[held_starts[i] : held_starts[i + 1]]``.
        """

    @property
    def held_pages(self) -> NDArray[numpy.int32]:
        """
        int32, shape ``[sum]``: pages of each request, one group after the other, without null pages.
        """

class Histogram:
    """How often values fell between bounds. A copy."""

    @property
    def bounds(self) -> list[int]:
        """Rising, inclusive; the last bucket has none."""

    @property
    def counts(self) -> list[int]:
        """One a bucket: one more than bounds."""

    @property
    def sum(self) -> int:
        """Of all values."""

    def __repr__(self) -> str: ...

class ResidencyStats:
    """
    How long pages keep their content and how often it is used, in the unit of ``advance_time``. A copy.
    """

    @property
    def sample_rate(self) -> float:
        """The share of pages that is watched."""

    @property
    def lifetime(self) -> Histogram:
        """From when a page was handed out to when its content was evicted."""

    @property
    def idle(self) -> Histogram:
        """From the last use of an evicted page to its eviction."""

    @property
    def reuse_gap(self) -> Histogram:
        """
        From one use of a page to the next; that it was handed out is the first.
        """

class ReplayDifference:
    """The first call of a trace that has another answer now."""

    @property
    def op(self) -> int:
        """Which call, from 1 on."""

    @property
    def call(self) -> str:
        """The call and its arguments."""

    @property
    def recorded(self) -> str:
        """The answer in the trace."""

    @property
    def replayed(self) -> str:
        """The answer now, or the invariant that does not hold after it."""

    def __repr__(self) -> str: ...

class ReplayReport:
    """What came of `replay_ops`."""

    @property
    def num_ops(self) -> int:
        """Calls whose answers were compared."""

    @property
    def was_stopped(self) -> bool:
        """
        Whether the trace has its end. If not, the process ended while it was recorded.
        """

    @property
    def is_cut(self) -> bool:
        """Whether the trace ends in the middle of a record, which was left out."""

    @property
    def unanswered_call(self) -> str | None:
        """A last call that the trace has no answer to, or None. It was made."""

    @property
    def difference(self) -> ReplayDifference | None:
        """The first call that has another answer now, or None."""

def replay_ops(path: str | os.PathLike[str], *, check: bool = False, max_pages: int = 16777216) -> ReplayReport:
    """
    Makes the calls of a trace again, on a manager like the one that it was recorded from, up to the first
    that has another answer.

    A trace that ends early, because the process did, is replayed as far as it goes. Goes on without
    Python's lock.

    Args:
      path: What ``CacheManager.start_recording`` wrote.
      check: Check the invariants of the manager after each call, which takes time in proportion to its
        pages.
      max_pages: Refuse traces of larger pools, which would take 64 bytes a page.

    Raises:
      ValueError: If the file is no trace, of another version, or damaged, naming the byte; if its pool is
        too large.
      OSError: If the file cannot be read.

    Example:

        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "ops.trace")
        >>> spec = FullAttentionSpec(page_size=4, num_kv_heads=1, head_size=64, dtype="bfloat16")
        >>> manager = CacheManager(16, [CacheGroupSpec(spec)], max_model_len=64)
        >>> manager.start_recording(path)
        >>> request = Request("a", range(10))
        >>> manager.match(request), manager.allocate(request, 10)
        (0, True)
        >>> manager.free(request)
        >>> manager.stop_recording()
        3
        >>> report = replay_ops(path, check=True)
        >>> report.num_ops, report.was_stopped, report.difference
        (3, True, None)
    """
