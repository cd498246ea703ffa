"""`easydel.inference.esurge.core.single_type_cache_manager`: what each group of a manager holds."""

from types import SimpleNamespace

from pagedkv import _core
from pagedkv.pages import PooledPage, pooled_pages

from .interface import (
    CacheSpec,
    ChunkedLocalAttentionSpec,
    FullAttentionSpec,
    MambaSpec,
    SlidingWindowSpec,
)
from .page_pool import PagePool


class SingleTypeCacheManager:
    """One group of a `CacheManager`, to look at: only the manager changes it.

    Attributes:
      kv_cache_spec: What its layers keep.
      page_size: Tokens of a page.
      kv_cache_group_id: Its position among the groups.
      page_pool: The pages, which all groups share.
    """

    def __init__(
        self,
        kv_cache_spec: CacheSpec,
        page_pool: PagePool,
        kv_cache_group_id: int,
        core: _core.CacheManager,
    ) -> None:
        self.kv_cache_spec = kv_cache_spec
        self.page_size = kv_cache_spec.page_size
        self.page_pool = page_pool
        self.kv_cache_group_id = kv_cache_group_id
        self._core = core

    def get_pages(self, request_id: str) -> list[PooledPage]:
        """Returns the pages of a request; the null page where it needs none."""
        ids = self._core.get_page_ids(request_id)[self.kv_cache_group_id]
        return pooled_pages(self._core.page_pool, [ids])[0]

    def get_num_common_prefix_pages(self, request_id: str, num_scheduled_requests: int) -> int:
        """Returns how many leading pages of a request that many requests hold."""
        counts = self._core.get_num_common_prefix_pages(
            SimpleNamespace(request_id=request_id), num_scheduled_requests
        )
        return counts[self.kv_cache_group_id]


class FullAttentionManager(SingleTypeCacheManager):
    """A group whose layers see every token."""


class SlidingWindowManager(SingleTypeCacheManager):
    """A group whose layers see a window of tokens."""


class ChunkedLocalAttentionManager(SingleTypeCacheManager):
    """A group whose layers see the tokens of a chunk."""


class MambaManager(SingleTypeCacheManager):
    """A group whose layers keep one state."""


_MANAGERS: dict[type[CacheSpec], type[SingleTypeCacheManager]] = {
    FullAttentionSpec: FullAttentionManager,
    SlidingWindowSpec: SlidingWindowManager,
    ChunkedLocalAttentionSpec: ChunkedLocalAttentionManager,
    MambaSpec: MambaManager,
}


def get_manager_for_kv_cache_spec(
    kv_cache_spec: CacheSpec,
    *,
    page_pool: PagePool,
    kv_cache_group_id: int,
    core: _core.CacheManager,
) -> SingleTypeCacheManager:
    """Returns the view that is for layers of this kind."""
    for spec_type, manager in _MANAGERS.items():
        if isinstance(kv_cache_spec, spec_type):
            return manager(kv_cache_spec, page_pool, kv_cache_group_id, core)
    return SingleTypeCacheManager(kv_cache_spec, page_pool, kv_cache_group_id, core)
