"""`easydel.inference.esurge.core.page_pool`: who holds which page."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pagedkv import _core
from pagedkv.hashing import PageHash, PageHashWithGroupId, hash_page_tokens
from pagedkv.pages import CachePage, PooledPage

from .dp_sharding import pages_per_dp_shard


class PagePool:
    """The pages of a cache: free, held, and what they contain.

    Args:
      num_pages: Pages, the null page among them.
      enable_caching: Whether pages keep what they contain until they are handed out again.

    Raises:
      ValueError: If ``num_pages`` is below 1.
    """

    def __init__(self, num_pages: int, enable_caching: bool) -> None:
        self._start(_core.PagePool(num_pages), enable_caching)

    @classmethod
    def of_manager(cls, manager: _core.CacheManager) -> "PagePool":
        """The pool of a manager, to look at: only the manager changes it."""
        pool = cls.__new__(cls)
        pool._start(manager.page_pool, manager.enable_caching)
        return pool

    def _start(self, core: Any, enable_caching: bool) -> None:
        self._core = core
        self.num_pages: int = core.num_pages
        self.enable_caching = enable_caching
        self.null_page = PooledPage(core, 0)
        self.cached_page_hash_to_page = _PagesByHash(core)
        self.free_page_queue = _FreePages(core)

    @property
    def pages(self) -> list[PooledPage]:
        """All pages, made anew."""
        return [PooledPage(self._core, page_id) for page_id in range(self.num_pages)]

    def get_num_free_pages(self) -> int:
        """Returns how many pages nobody holds, the null page not among them."""
        return self._core.num_free_pages  # type: ignore[no-any-return]

    def get_usage(self) -> float:
        """Returns the share of the pages that is not free; the null page counts as used."""
        return 1.0 - self.get_num_free_pages() / self.num_pages

    def get_cached_page(
        self,
        page_hash: PageHash,
        kv_cache_group_ids: Sequence[int],
        *,
        dp_shard_hint: int | None = None,
        data_parallel_size: int | None = None,
    ) -> list[PooledPage] | None:
        """Returns the oldest page with this content in each group; None if one has none."""
        shard = self._shard(dp_shard_hint, data_parallel_size)
        digest = _digest(page_hash)
        found = [self._core.find(digest, group, shard) for group in kv_cache_group_ids]
        if None in found:
            return None
        return [PooledPage(self._core, page_id) for page_id in found]

    def cache_full_pages(
        self,
        request: Any,
        pages: Sequence[CachePage],
        page_hashes: list[PageHash],
        num_cached_pages: int,
        num_full_pages: int,
        page_size: int,
        kv_cache_group_id: int,
    ) -> None:
        """Makes the pages from ``num_cached_pages`` to ``num_full_pages`` findable.

        Hashes that ``page_hashes`` lacks are made from ``request.all_token_ids`` and added to it.
        Null pages are left out: they contain nothing.

        Raises:
          ValueError: If there are fewer hashes than cached pages, if the request has fewer tokens,
            or if a page is not held or can be found already. Then nothing happens.
        """
        self._check_own("cache_full_pages")
        if len(page_hashes) < num_cached_pages:
            raise ValueError(
                f"[PagePool.cache_full_pages] {num_cached_pages} pages are cached, "
                f"page_hashes has {len(page_hashes)}"
            )
        hashes = list(page_hashes)
        for i in range(len(hashes), num_full_pages):
            tokens = request.all_token_ids[i * page_size : (i + 1) * page_size]
            if len(tokens) != page_size:
                raise ValueError(
                    f"[PagePool.cache_full_pages] page {i} of request '{request.request_id}' "
                    f"has {len(tokens)} tokens, not {page_size}"
                )
            parent = hashes[-1].hash_value if hashes else None
            hashes.append(hash_page_tokens(hash, parent, tokens, None))
        found: dict[int, bytes] = {}
        for i in range(num_cached_pages, min(num_full_pages, len(pages))):
            page_id = pages[i].page_id
            if pages[i].is_null:
                continue
            if self._core.ref_count(page_id) == 0:
                raise ValueError(f"[PagePool.cache_full_pages] page {page_id} is not held")
            if page_id in found or self._core.is_cached(page_id):
                raise ValueError(f"[PagePool.cache_full_pages] page {page_id} can be found already")
            found[page_id] = _digest(hashes[i])
        for page_id, digest in found.items():
            self._core.cache(page_id, digest, kv_cache_group_id)
        page_hashes[:] = hashes

    def get_new_pages(
        self,
        num_pages: int,
        *,
        dp_shard_hint: int | None = None,
        data_parallel_size: int | None = None,
    ) -> list[PooledPage]:
        """Takes the pages that have been free for longest, each held once.

        Raises:
          ValueError: If fewer are free: then none is taken.
        """
        self._check_own("get_new_pages")
        shard = self._shard(dp_shard_hint, data_parallel_size)
        taken = self._core.allocate(num_pages, shard)
        if taken is None:
            where = "" if shard is None else f" in shard {shard}"
            raise ValueError(
                f"[PagePool.get_new_pages] cannot get {num_pages} pages{where}, "
                f"{self.get_num_free_pages()} are free in all"
            )
        return [PooledPage(self._core, page_id) for page_id in taken.tolist()]

    def touch(self, pages: Iterable[Iterable[CachePage]]) -> None:
        """Holds each page once more."""
        self._check_own("touch")
        self._core.hold([page.page_id for group in pages for page in group if not page.is_null])

    def free_pages(self, ordered_pages: Iterable[CachePage]) -> None:
        """Gives each page back once; the first is handed out first.

        Raises:
          ValueError: If a page is not held: then nothing happens.
        """
        self._check_own("free_pages")
        self._core.free([page.page_id for page in ordered_pages if not page.is_null])

    def reset_prefix_cache(self) -> bool:
        """Forgets all content. Returns False and does nothing while a page is held."""
        self._check_own("reset_prefix_cache")
        return self._core.reset_prefix_cache()  # type: ignore[no-any-return]

    def _shard(self, hint: int | None, num_shards: int | None) -> int | None:
        if hint is None or pages_per_dp_shard(self.num_pages, num_shards) is None:
            return None
        assert num_shards is not None
        if isinstance(self._core, _core.PagePool):
            self._core.set_num_shards(num_shards)
        elif self._core.num_shards != num_shards:
            raise ValueError(
                f"[PagePool] the manager has {self._core.num_shards} shards, got {num_shards}"
            )
        return hint % num_shards

    def _check_own(self, operation: str) -> None:
        if not isinstance(self._core, _core.PagePool):
            raise TypeError(
                f"[PagePool.{operation}] the pool belongs to a CacheManager, which alone changes it"
            )


class _PagesByHash:
    """The pages that can be found, by `PageHashWithGroupId`."""

    def __init__(self, core: Any) -> None:
        self._core = core

    def __len__(self) -> int:
        return self._core.num_cached_keys  # type: ignore[no-any-return]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, PageHashWithGroupId) and self.get(key) is not None

    def get(self, key: PageHashWithGroupId) -> dict[int, PooledPage] | None:
        """Returns the oldest page, by its id; None if there is none."""
        page_id = self._core.find(_digest(key.page_hash), key.group_id)
        return None if page_id is None else {page_id: PooledPage(self._core, page_id)}

    def __iter__(self) -> Iterator[PageHashWithGroupId]:
        digests = {self._core.digest(page_id) for page_id in range(self._core.num_pages)}
        return iter(
            [PageHashWithGroupId(PageHash(found[0], ()), found[1]) for found in digests if found]
        )


class _FreePages:
    """The free pages, to look at."""

    def __init__(self, core: Any) -> None:
        self._core = core

    @property
    def num_free_pages(self) -> int:
        return self._core.num_free_pages  # type: ignore[no-any-return]

    def get_all_free_pages(self) -> list[PooledPage]:
        return [PooledPage(self._core, page_id) for page_id in self._core.free_pages().tolist()]


def _digest(page_hash: PageHash) -> bytes:
    """32 bytes: the digest that the hash is, or one of all that the hash was made of."""
    value = page_hash.hash_value
    if isinstance(value, bytes) and len(value) in (16, 32):
        return value.ljust(32, b"\0")
    return hashlib.sha256(repr(page_hash).encode()).digest()
