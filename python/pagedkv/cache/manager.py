"""Which pages of a cache are free."""

import operator
from collections.abc import Callable, Iterable
from typing import Any

from pagedkv._core import PagePool

# EasyDeL 0.1.3's: page tables are padded with it.
_DUMMY_PAGE = 0


class PagedAttentionCacheManager:
    """Hands out the pages of a cache, those first that were freed first.

    The names and the order of the ids are EasyDeL 0.1.3's; below them is a `PagePool`. Nothing is
    shared here: `pagedkv.CacheManager` knows requests and prefixes. Not thread-safe.

    Args:
      metadata: A `PagedAttentionCacheMetaData`: any object with ``num_pages_per_layer`` and
        ``page_size``.

    Example:
      >>> from types import SimpleNamespace
      >>> from pagedkv import PagedAttentionCacheManager
      >>> manager = PagedAttentionCacheManager(SimpleNamespace(num_pages_per_layer=5, page_size=16))
      >>> manager.alloc_prefill_hbm_pages(40), manager.alloc_hbm_pages(2)
      ([1, 2, 3], [])
      >>> manager.free_hbm_pages([2, 0, 0])
      >>> manager.alloc_hbm_pages(2)
      [4, 2]
    """

    def __init__(self, metadata: Any) -> None:
        self._page_size = int(metadata.page_size)
        self._pool = PagePool(int(metadata.num_pages_per_layer))

    @property
    def page_size(self) -> int:
        """Tokens of a page."""
        return self._page_size

    @property
    def current_page_index(self) -> int:
        """The dummy page, 0: it pads page tables and is never handed out."""
        return _DUMMY_PAGE

    @property
    def num_free_pages(self) -> int:
        """Pages that can be handed out now."""
        return self._pool.num_free_pages

    def alloc_prefill_hbm_pages(self, prompt_len: int) -> list[int]:
        """Takes the pages of ``prompt_len`` tokens; see `alloc_hbm_pages`.

        Raises:
          TypeError: If ``prompt_len`` is no integer.
        """
        num_tokens = _as_int("alloc_prefill_hbm_pages", "prompt_len", prompt_len)
        return self.alloc_hbm_pages(-(-num_tokens // self._page_size))

    def alloc_hbm_pages(self, n: int) -> list[int]:
        """Takes ``n`` pages.

        Returns:
          Their ids. Empty, with nothing taken, if fewer are free or ``n`` is below 1.

        Raises:
          TypeError: If ``n`` is no integer.
        """
        count = _as_int("alloc_hbm_pages", "n", n)
        if not 0 < count <= self._pool.num_free_pages:
            return []
        pages = self._pool.allocate(count)
        return [] if pages is None else pages.tolist()

    def free_hbm_pages(self, pages: Iterable[int]) -> None:
        """Gives pages back, in this order; the dummy page is skipped.

        Raises:
          TypeError: If ``pages`` are no integers.
          IndexError: If a page is not one of the cache.
          ValueError: If a page is free already, or given twice. Whatever is raised, none is freed.
        """
        held = [
            page
            for page in (_as_int("free_hbm_pages", "pages", page) for page in pages)
            if page != _DUMMY_PAGE
        ]
        _renamed("free_hbm_pages", self._pool.free, held)

    def check_invariants(self) -> None:
        """Raises RuntimeError naming what does not hold. For tests."""
        self._pool.check_invariants()


def _as_int(method: str, name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(
            f"[PagedAttentionCacheManager.{method}] {name} must be int, got {type(value).__name__}"
        ) from None


def _renamed(method: str, call: Callable[[list[int]], None], pages: list[int]) -> None:
    """Calls the pool; what it refuses, it refuses in our name."""
    try:
        call(pages)
    except (IndexError, ValueError) as error:
        rule = str(error).partition("] ")[2]
        raise type(error)(f"[PagedAttentionCacheManager.{method}] {rule}") from None
