"""Pages as Python objects, and a queue of free ones.

For code that walks over pages one by one. `CacheManager` keeps its pages in C++, and makes these
objects only when somebody asks it for them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pagedkv._core import PagePool, PagePoolView
from pagedkv.hashing import PageHash, PageHashWithGroupId


@dataclass(slots=True, eq=False)
class CachePage:
    """One page: who holds it, what it contains, and its neighbours among the free ones."""

    page_id: int
    ref_cnt: int = 0
    _page_hash: PageHashWithGroupId | None = None
    prev_free_page: "CachePage | None" = None
    next_free_page: "CachePage | None" = None
    is_null: bool = False

    def incr_ref(self) -> None:
        """Counts one more holder."""
        self.ref_cnt += 1

    def decr_ref(self) -> None:
        """Counts one holder less.

        Raises:
          ValueError: If nobody holds the page.
        """
        if self.ref_cnt < 1:
            raise ValueError(f"[CachePage.decr_ref] page {self.page_id} is not held")
        self.ref_cnt -= 1

    @property
    def page_hash(self) -> PageHashWithGroupId | None:
        """What the content is found by, or None. Can be set once, until `reset_hash`."""
        return self._page_hash

    @page_hash.setter
    def page_hash(self, page_hash: PageHashWithGroupId) -> None:
        if self._page_hash is not None:
            raise ValueError(f"[CachePage.page_hash] page {self.page_id} has a hash already")
        self._page_hash = page_hash

    def reset_hash(self) -> None:
        """Forgets the content."""
        self._page_hash = None

    def __repr__(self) -> str:
        neighbours = (self.prev_free_page, self.next_free_page)
        prev_id, next_id = (page.page_id if page else None for page in neighbours)
        return (
            f"{type(self).__name__}(page_id={self.page_id}, ref_cnt={self.ref_cnt}, "
            f"page_hash={self.page_hash}, prev_free_page={prev_id}, next_free_page={next_id})"
        )


class PooledPage(CachePage):
    """A page of a pool, as it is now: the pool alone changes it.

    Its hash names no tokens, and has the digest as value: the pool keeps no more.
    """

    __slots__ = ("_pool",)

    def __init__(self, pool: PagePool | PagePoolView, page_id: int) -> None:
        self._pool = pool
        self.page_id = page_id

    @property
    def ref_cnt(self) -> int:  # type: ignore[override]
        return self._pool.ref_count(self.page_id)

    @property
    def is_null(self) -> bool:  # type: ignore[override]
        return self.page_id == 0

    @property
    def page_hash(self) -> PageHashWithGroupId | None:
        found = self._pool.digest(self.page_id)
        return None if found is None else PageHashWithGroupId(PageHash(found[0], ()), found[1])

    @page_hash.setter
    def page_hash(self, page_hash: PageHashWithGroupId) -> None:
        raise self._refusal("page_hash")

    @property
    def prev_free_page(self) -> CachePage | None:  # type: ignore[override]
        return self._neighbour(-1)

    @property
    def next_free_page(self) -> CachePage | None:  # type: ignore[override]
        return self._neighbour(1)

    def incr_ref(self) -> None:
        raise self._refusal("incr_ref")

    def decr_ref(self) -> None:
        raise self._refusal("decr_ref")

    def reset_hash(self) -> None:
        raise self._refusal("reset_hash")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PooledPage):
            return NotImplemented
        return self.page_id == other.page_id and self._pool == other._pool

    def __hash__(self) -> int:
        return hash(self.page_id)

    def _neighbour(self, step: int) -> "PooledPage | None":
        free = self._pool.free_pages().tolist()
        if self.page_id not in free:
            return None
        i = free.index(self.page_id) + step
        return PooledPage(self._pool, free[i]) if 0 <= i < len(free) else None

    def _refusal(self, operation: str) -> TypeError:
        return TypeError(
            f"[CachePage.{operation}] page {self.page_id} belongs to a pool, which alone changes it"
        )


def pooled_pages(
    pool: PagePool | PagePoolView, page_ids: Iterable[Iterable[int]]
) -> tuple[list[PooledPage], ...]:
    """Makes the objects of pages of a pool: a tuple of lists, as the ids are."""
    return tuple([PooledPage(pool, page_id) for page_id in group] for group in page_ids)


class FreeCachePageQueue:
    """Pages in the order in which they are to be used, linked through their own attributes.

    Every operation is O(1), or O(pages given). The idea is vLLM's, and EasyDeL's.

    Args:
      pages: From the first to the last. In no queue yet.

    Raises:
      ValueError: If a page is in a queue already.
    """

    def __init__(self, pages: Sequence[CachePage]) -> None:
        self.num_free_pages = 0
        self.fake_free_list_head = CachePage(page_id=-1)
        self.fake_free_list_tail = CachePage(page_id=-1)
        _link(self.fake_free_list_head, self.fake_free_list_tail)
        self.append_n(pages)

    def popleft(self) -> CachePage:
        """Takes the first page.

        Raises:
          ValueError: If there is none.
        """
        return self.popleft_n(1)[0]

    def popleft_n(self, n: int) -> list[CachePage]:
        """Takes the first ``n`` pages.

        Raises:
          ValueError: If there are fewer, or ``n`` is negative. Then none is taken.
        """
        if not 0 <= n <= self.num_free_pages:
            raise ValueError(
                f"[FreeCachePageQueue.popleft] has {self.num_free_pages} free pages, cannot take {n}"
            )
        return [self._unlink(_next(self.fake_free_list_head)) for _ in range(n)]

    def remove(self, page: CachePage) -> None:
        """Takes ``page`` from wherever it is.

        Raises:
          ValueError: If it is in no queue.
        """
        if page.prev_free_page is None or page.next_free_page is None:
            raise ValueError(f"[FreeCachePageQueue.remove] page {page.page_id} is not free")
        self._unlink(page)

    def append(self, page: CachePage) -> None:
        """Adds ``page`` as the last.

        Raises:
          ValueError: If it is in a queue already.
        """
        self.append_n([page])

    def append_n(self, pages: Sequence[CachePage]) -> None:
        """Adds pages after the last.

        Raises:
          ValueError: If one is in a queue already, or given twice. Then none is added.
        """
        for i, page in enumerate(pages):
            if page.prev_free_page is not None or page.next_free_page is not None:
                for added in pages[:i]:
                    self._unlink(added)
                raise ValueError(
                    f"[FreeCachePageQueue.append] page {page.page_id} is in a queue already"
                )
            _link(_prev(self.fake_free_list_tail), page)
            _link(page, self.fake_free_list_tail)
            self.num_free_pages += 1

    def get_all_free_pages(self) -> list[CachePage]:
        """Returns all pages in order. O(pages)."""
        pages = []
        page = _next(self.fake_free_list_head)
        while page is not self.fake_free_list_tail:
            pages.append(page)
            page = _next(page)
        return pages

    def _unlink(self, page: CachePage) -> CachePage:
        _link(_prev(page), _next(page))
        page.prev_free_page = page.next_free_page = None
        self.num_free_pages -= 1
        return page


def _link(left: CachePage, right: CachePage) -> None:
    left.next_free_page = right
    right.prev_free_page = left


def _next(page: CachePage) -> Any:
    return page.next_free_page


def _prev(page: CachePage) -> Any:
    return page.prev_free_page
