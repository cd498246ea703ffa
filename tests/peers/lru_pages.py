"""Exact LRU of a pool's pages, kept as simply as can be, and a manager that is held to it.

The peer here is the textbook: a list of the free pages in the order in which they were given back.
"""

from collections import OrderedDict

from pagedkv import CacheManager


class Mismatch(AssertionError):
    """The manager did something else than exact LRU would."""


class LruPages:
    """Free pages, the coldest first; how many hold each page; which pages have content.

    Page 0 is the null page, which nobody gets.
    """

    def __init__(self, num_pages: int) -> None:
        self.free = OrderedDict.fromkeys(range(1, num_pages))
        self.num_taken = 0
        self.num_reused = 0
        self.num_evicted = 0
        self._num_holders = [0] * num_pages
        self._has_content = bytearray(num_pages)

    def reuse(self, page: int) -> None:
        """A request holds a page of its cached prefix: it leaves the free pages, if it is there."""
        if not self._has_content[page]:
            raise Mismatch(f"page {page} is given for a cached one, and has no content")
        if self._num_holders[page] == 0:
            del self.free[page]
        self._num_holders[page] += 1
        self.num_reused += 1

    def take(self, page: int) -> None:
        """A request gets a new page: it must be the coldest. Its content is gone."""
        coldest = next(iter(self.free), None)
        if page != coldest:
            raise Mismatch(
                f"page {page} is handed out, LRU says {coldest}, after {self.num_taken} pages"
            )
        del self.free[page]
        self._num_holders[page] = 1
        self.num_taken += 1
        self.num_evicted += self._has_content[page]
        self._has_content[page] = False

    def give_back(self, row: list[int]) -> None:
        """A request lets go of its pages, the last one first."""
        for page in reversed(row):
            self._num_holders[page] -= 1
            if self._num_holders[page] == 0:
                self.free[page] = None

    def fill(self, pages: list[int]) -> None:
        """Pages are full, and can be found."""
        for page in pages:
            self._has_content[page] = True


class CheckedManager:
    """The step calls of a manager of one group of full attention, each compared with `LruPages`.

    Everything else is the manager's own.
    """

    def __init__(self, manager: CacheManager) -> None:
        self.lru = LruPages(manager.num_pages)
        self._manager = manager
        self._rows: dict[int, list[int]] = {}
        self._num_computed: dict[int, int] = {}

    def __getattr__(self, name):
        return getattr(self._manager, name)

    def allocate_step(self, handles, num_new_tokens, *, num_cached_tokens=None, **options):
        grant = self._manager.allocate_step(
            handles, num_new_tokens, num_cached_tokens=num_cached_tokens, **options
        )
        ids, offsets = grant.new_page_ids().tolist(), grant.new_page_offsets().tolist()
        for i, handle in enumerate(map(int, handles[: grant.num_requests])):
            num_cached = 0 if num_cached_tokens is None else int(num_cached_tokens[i])
            pages = ids[offsets[i] : offsets[i + 1]]
            num_reused = num_cached // self._manager.page_size
            for page in pages[:num_reused]:
                self.lru.reuse(page)
            for page in pages[num_reused:]:
                self.lru.take(page)
            self._rows.setdefault(handle, []).extend(pages)
            self._num_computed[handle] = self._num_computed.get(handle, 0) + num_cached
        if self._manager.num_evictions != self.lru.num_evicted:
            raise Mismatch(
                f"{self._manager.num_evictions} evictions, LRU has {self.lru.num_evicted}"
            )
        return grant

    def commit_step(self, handles, num_new_tokens):
        self._manager.commit_step(handles, num_new_tokens)
        for handle, count in zip(map(int, handles), num_new_tokens, strict=True):
            before = self._num_computed[handle]
            after = self._num_computed[handle] = before + int(count)
            page_size = self._manager.page_size
            self.lru.fill(self._rows[handle][before // page_size : after // page_size])

    def free_requests(self, handles):
        self._manager.free_requests(handles)
        self._give_back(handles)

    def remove_requests(self, handles):
        self._manager.remove_requests(handles)
        self._give_back(handles)

    def check_order(self) -> None:
        """Compares all free pages, the coldest first. O(pages)."""
        free = self._manager.page_pool.free_pages().tolist()
        if free != list(self.lru.free):
            raise Mismatch(f"free pages, coldest first: {free}, LRU has {list(self.lru.free)}")

    def _give_back(self, handles) -> None:
        for handle in map(int, handles):
            self.lru.give_back(self._rows.pop(handle, []))
            self._num_computed.pop(handle, None)
