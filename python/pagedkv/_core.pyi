"""C++ core of pagedkv. Import from `pagedkv`, not from here."""

from collections.abc import Sequence
from typing import overload

import numpy
from numpy.typing import NDArray


class CacheSpec:
    """What one layer keeps in the cache. Immutable."""

    @property
    def page_size(self) -> int:
        """Tokens a page holds."""

    @property
    def page_size_bytes(self) -> int:
        """Bytes one page of one layer takes."""

class AttentionSpec(CacheSpec):
    """A layer that keeps K and V of tokens."""

    @property
    def num_kv_heads(self) -> int: ...

    @property
    def head_size(self) -> int:
        """Elements of one head's row."""

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

    def __init__(self, page_size: int, num_kv_heads: int, head_size: int, dtype: object, use_mla: bool = False) -> None:
        """
        Describes a layer by the K/V of one token: ``num_kv_heads`` rows of ``head_size``.

        Args:
          page_size: Tokens a page holds, at least 1.
          num_kv_heads: At least 1.
          head_size: Elements of one head's row, at least 1.
          dtype: Name such as ``"bfloat16"``, or a NumPy, ml_dtypes or JAX dtype.
          use_mla: One latent row stands for K and V.

        Raises:
          ValueError: If a size is below 1, the dtype is unknown, or a page is not whole bytes.
          TypeError: If ``dtype`` is no dtype.

        Example:

            >>> FullAttentionSpec(16, 3, 64, "bfloat16").page_size_bytes
            12288
        """

class CacheGroupSpec:
    """Layers that share one page table: own tensors, same page ids."""

    def __init__(self, kv_cache_spec: FullAttentionSpec, layer_names: Sequence[str] = []) -> None:
        """
        Groups layers that all have one spec.

        Args:
          kv_cache_spec: What each of the layers keeps.
          layer_names: Names of the layers, for the reader.
        """

    @property
    def kv_cache_spec(self) -> FullAttentionSpec: ...

    @property
    def layer_names(self) -> list[str]: ...

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

def none_hash(seed: str = 'vllm-none-hash') -> bytes:
    """
    Computes the parent digest of a first page.

    Args:
      seed: Caches with different seeds share nothing. The default is vLLM's.

    Returns:
      32 bytes: SHA-256 of the canonical CBOR of ``seed``.

    Example:
      >>> none_hash().hex()[:8]
      '9bd96a48'
    """

def hash_page(parent: bytes, tokens: object, extra: bytes | None = None) -> bytes:
    """
    Computes the digest of a full page (vLLM's ``sha256_cbor``).

    Args:
      parent: Digest of the page before, 32 bytes; ``none_hash()`` for the first page.
      tokens: int32, shape ``[page_size]``, or a sequence of ints in the range of int32.
      extra: Canonical CBOR of the page's extra keys. ``None`` or empty if it has none.

    Returns:
      32 bytes: SHA-256 of the canonical CBOR of ``(parent, tokens, extra keys or null)``.

    Raises:
      ValueError: If ``parent`` is not 32 bytes, or a token does not fit in int32.
      TypeError: If ``tokens`` are not integers in one dimension.

    Example:
      >>> hash_page(none_hash(), range(1000, 1016)).hex()[:8]
      '15528b72'
    """

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

    def allocate(self, count: int) -> NDArray[numpy.int32] | None:
        """
        Takes the ``count`` coldest free pages, each held once; their old content is forgotten.

        Returns:
          int32, shape ``[count]``, or None if fewer pages are free: then nothing is done.

        Raises:
          ValueError: If ``count`` is negative.

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

    def find(self, digest: bytes, group: int = 0) -> int | None:
        """
        The oldest page whose content has this digest in ``group``, or None.

        Raises:
          ValueError: If ``digest`` is not 32 bytes.
        """

    def cache(self, page: int, digest: bytes, group: int = 0) -> None:
        """
        Makes the content of a held page findable.

        Raises:
          IndexError: If ``page`` is out of range.
          ValueError: If nobody holds ``page``, if it is cached already, if ``digest`` is not 32 bytes, or
            if ``group`` is negative.
        """

    def reset_prefix_cache(self) -> bool:
        """
        Forgets the content of every page. Returns False and does nothing while one is held.
        """

    def check_invariants(self) -> None:
        """Raises RuntimeError naming what does not hold. For tests."""

class Request:
    """
    The tokens of one sequence, owned by C++, and the digests of its full pages.

    Tokens are only ever appended. A request holds pages of one manager at a time.
    """

    def __init__(self, request_id: str, tokens: object) -> None:
        """
        Copies the prompt.

        Args:
          request_id: A name for messages; nothing depends on its being unique.
          tokens: Token ids, shape ``[n]``: an integer array (int32 is fastest) or a sequence of int.

        Raises:
          TypeError: If ``tokens`` are not integers in one dimension.
          ValueError: If a token does not fit in int32.

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

    def page_hash(self, page: int) -> bytes:
        """
        The digest that names the content of full page ``page``: equal for requests that share it.

        Pages are of the size of the manager that last saw the request (``match`` or ``allocate``).

        Raises:
          ValueError: If no manager has seen the request yet.
          IndexError: If page ``page`` is not full.
        """

    def __repr__(self) -> str: ...

class CacheManager:
    """
    Decides which page every token of every request lives in.

    A request's life: ``match`` finds the longest cached prefix, ``allocate`` takes it and makes room
    for the tokens of the next step, ``commit`` says that their K/V is computed (only now can others
    find it), and so on; ``free`` gives the pages back. The manager keeps a reference to each request
    that holds pages.

    Not thread-safe. Deterministic: the same calls give the same page ids. A call that raises, and an
    ``allocate`` that returns False, leave everything as it was.
    """

    def __init__(self, num_pages: int, kv_cache_groups: Sequence[CacheGroupSpec], max_model_len: int, enable_caching: bool = True) -> None:
        """
        Makes an empty cache.

        Args:
          num_pages: Pages of the pool, the null page among them.
          kv_cache_groups: Groups of layers; all share the pool, each has its own page tables.
          max_model_len: Most tokens a request may have.
          enable_caching: Whether requests find each other's pages.

        Raises:
          ValueError: If a size is below 1, there are no groups, groups differ in page size, or slots
            (``num_pages * page_size``) do not fit in int32.

        Example:

            >>> spec = FullAttentionSpec(page_size=4, num_kv_heads=1, head_size=64, dtype="bfloat16")
            >>> manager = CacheManager(16, [CacheGroupSpec(spec)], max_model_len=64)
            >>> first = Request("first", range(10))
            >>> manager.allocate(first, 10), manager.page_ids(first).tolist()
            (True, [1, 2, 3])
            >>> manager.commit(first, 10)
            >>> second = Request("second", range(10))
            >>> manager.match(second)
            8
            >>> manager.allocate(second, 2, num_cached_tokens=8), manager.page_ids(second).tolist()
            (True, [1, 2, 4])
        """

    def match(self, request: Request) -> int:
        """
        Tokens of the longest prefix of ``request`` that is cached in every group.

        A multiple of ``page_size``, and less than ``request.num_tokens``: one token is left to compute the
        next from. 0 for a request that holds pages. Holds nothing: the pages may go until ``allocate``.
        """

    def allocate(self, request: Request, num_new_tokens: int, *, num_cached_tokens: int = 0) -> bool:
        """
        Makes room for ``num_new_tokens`` tokens after those computed.

        The first call of a request takes the first ``num_cached_tokens`` of its prefix from the cache, as
        ``match`` found them; they count as computed.

        Args:
          request: Holds pages of this manager, or none.
          num_new_tokens: At least 1. With the computed tokens at most ``request.num_tokens``, and at most
            ``max_model_len``.
          num_cached_tokens: What ``match`` gave, or a smaller multiple of ``page_size``. 0 for a request
            that holds pages.

        Returns:
          False if too few pages are free: then nothing is done.

        Raises:
          ValueError: If a count is out of range, if the prefix is no longer cached, or if the request
            holds pages of another manager.
        """

    def commit(self, request: Request, num_computed_tokens: int) -> None:
        """
        Says that the K/V of the first ``num_computed_tokens`` tokens is in the pages.

        Call it when the step that computes them is launched, before anything that reads the pages is: from
        now on other requests find the full pages.

        Raises:
          ValueError: If the request holds no pages, has no room for that many tokens, or has more computed.
        """

    def free(self, request: Request) -> None:
        """
        Gives all pages of ``request`` back; its last page is evicted first.

        Raises:
          ValueError: If the request holds no pages: freed twice, or never allocated.
        """

    def page_ids(self, request: Request, group: int = 0) -> NDArray[numpy.int32]:
        """
        The pages of ``request`` in order: int32, shape ``[pages]``.

        Raises:
          ValueError: If the request holds no pages.
          IndexError: If ``group`` is not a group.
        """

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
    def num_groups(self) -> int: ...

    @property
    def num_requests(self) -> int:
        """Requests that hold pages."""

    @property
    def page_size(self) -> int:
        """Tokens a page holds."""

    @property
    def max_model_len(self) -> int: ...

    @property
    def enable_caching(self) -> bool: ...

    @property
    def usage(self) -> float:
        """
        Share of the pages that is not free, from 0 to 1. The null page counts as used.
        """

    def reset_prefix_cache(self) -> bool:
        """
        Forgets all cached content. Returns False and does nothing while a request holds pages.
        """

    def check_invariants(self) -> None:
        """Raises RuntimeError naming what does not hold. For tests."""
