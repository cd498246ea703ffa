"""`easydel.inference.esurge.core.coordinator`: the groups of a manager, together."""

from collections.abc import Sequence

from pagedkv import _core
from pagedkv.pages import PooledPage, pooled_pages

from .interface import CacheGroupSpec
from .page_pool import PagePool
from .single_type_cache_manager import get_manager_for_kv_cache_spec


class CacheCoordinator:
    """The groups of a `CacheManager`, to look at: only the manager changes them.

    Attributes:
      page_pool: The pages, which all groups share.
      single_type_managers: One a group.
    """

    def __init__(self, core: _core.CacheManager, kv_cache_groups: Sequence[CacheGroupSpec]) -> None:
        self._core = core
        self.num_pages = core.num_pages
        self.kv_cache_groups = kv_cache_groups
        self.max_model_len = core.max_model_len
        self.enable_caching = core.enable_caching
        self.use_eagle = core.use_eagle
        self.page_pool = PagePool.of_manager(core)
        self.single_type_managers = tuple(
            get_manager_for_kv_cache_spec(
                group.kv_cache_spec, page_pool=self.page_pool, kv_cache_group_id=i, core=core
            )
            for i, group in enumerate(kv_cache_groups)
        )

    def get_pages(self, request_id: str) -> tuple[list[PooledPage], ...]:
        """Returns the pages of a request, a list a group."""
        return pooled_pages(self._core.page_pool, self._core.get_page_ids(request_id))

    def get_num_common_prefix_pages(
        self, request_id: str, num_scheduled_requests: int
    ) -> list[int]:
        """Returns how many leading pages of a request that many requests hold, for each group."""
        return [
            manager.get_num_common_prefix_pages(request_id, num_scheduled_requests)
            for manager in self.single_type_managers
        ]


class CacheCoordinatorNoPrefixCache(CacheCoordinator):
    """The groups of a manager that does not cache."""


class UnitaryCacheCoordinator(CacheCoordinator):
    """The one group of a manager."""


class HybridCacheCoordinator(CacheCoordinator):
    """The groups of a manager that has several: any number, of any kinds."""


def coordinator_of(
    core: _core.CacheManager, kv_cache_groups: Sequence[CacheGroupSpec]
) -> CacheCoordinator:
    """Returns the view that is for a manager like this."""
    kind: type[CacheCoordinator] = HybridCacheCoordinator
    if not core.enable_caching:
        kind = CacheCoordinatorNoPrefixCache
    elif len(kv_cache_groups) == 1:
        kind = UnitaryCacheCoordinator
    return kind(core, kv_cache_groups)


def get_kv_cache_coordinator(
    num_pages: int,
    kv_cache_groups: Sequence[CacheGroupSpec],
    max_model_len: int,
    use_eagle: bool,
    enable_caching: bool,
) -> CacheCoordinator:
    """Returns the groups of a new manager, of which nobody has the rest."""
    core = _core.CacheManager(
        num_pages, kv_cache_groups, max_model_len, enable_caching, use_eagle, as_easydel=True
    )
    return coordinator_of(core, kv_cache_groups)
