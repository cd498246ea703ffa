"""`easydel.inference.esurge.core.manager`: the calls that EasyDeL's scheduler makes."""

from collections.abc import Sequence
from typing import Any

import pagedkv
from pagedkv import CachePages

from .coordinator import coordinator_of
from .interface import CacheGroupSpec

__all__ = ["CacheManager", "CachePages"]

# What schedulers call for each request in each step.
_CALLS = ("allocate_slots", "cache_pages", "free", "free_page_hashes", "get_page_ids")


class CacheManager:
    """EasyDeL's cache manager, on pagedkv's core. Methods are as `pagedkv.CacheManager` has them.

    Args:
      num_pages: Pages of the pool, the null page among them.
      kv_cache_groups: Groups of layers, at least one.
      max_model_len: Most tokens a request may have.
      enable_caching: Whether requests find each other's pages.
      use_eagle: Whether the last page of every hit is computed again.

    Raises:
      ValueError: If a size is below 1, there are no groups, or slots do not fit in int32.
    """

    # `__init__` puts the core's own methods in place of those below, where a subclass has none: it
    # spares hot calls a Python frame. Instances that were not made by it, but given a coordinator
    # and a pool, have no core.
    _core: pagedkv.CacheManager

    def __init__(
        self,
        num_pages: int,
        kv_cache_groups: Sequence[CacheGroupSpec],
        max_model_len: int,
        enable_caching: bool = True,
        use_eagle: bool = False,
    ) -> None:
        core = pagedkv.CacheManager(
            num_pages, kv_cache_groups, max_model_len, enable_caching, use_eagle, as_easydel=True
        )
        self._core = core
        self.num_pages = num_pages
        self.kv_cache_groups = kv_cache_groups
        self.num_kv_cache_groups = len(kv_cache_groups)
        self.max_model_len = max_model_len
        self.enable_caching = enable_caching
        self.use_eagle = use_eagle
        self.page_size = core.page_size if enable_caching else None
        self.coordinator = coordinator_of(core, kv_cache_groups)
        self.page_pool = self.coordinator.page_pool
        for name in _CALLS:
            if getattr(type(self), name) is getattr(CacheManager, name):
                setattr(self, name, getattr(core, name))

    @property
    def usage(self) -> float:
        """Share of the pages that is not free; the null page counts as used."""
        return self.page_pool.get_usage()

    def get_computed_pages(
        self,
        request: Any,
        *,
        dp_shard_hint: int | None = None,
        data_parallel_size: int | None = None,
    ) -> tuple[CachePages, int]:
        """As `pagedkv.CacheManager.get_computed_pages`."""
        return self._core.get_computed_pages(
            request, dp_shard_hint=dp_shard_hint, data_parallel_size=data_parallel_size
        )

    def allocate_slots(
        self,
        request: Any,
        num_new_tokens: int,
        num_new_computed_tokens: int = 0,
        new_computed_pages: CachePages | None = None,
        num_lookahead_tokens: int = 0,
        delay_cache_pages: bool = False,
        dp_shard_hint: int | None = None,
        data_parallel_size: int | None = None,
    ) -> CachePages | None:
        """As `pagedkv.CacheManager.allocate_slots`."""
        allocate = (
            self._core.allocate_slots if hasattr(self, "_core") else self._allocate_from_parts
        )
        return allocate(
            request,
            num_new_tokens,
            num_new_computed_tokens,
            new_computed_pages,
            num_lookahead_tokens,
            delay_cache_pages,
            dp_shard_hint,
            data_parallel_size,
        )

    def cache_pages(self, request: Any, num_computed_tokens: int) -> None:
        """As `pagedkv.CacheManager.cache_pages`."""
        self._core.cache_pages(request, num_computed_tokens)

    def free(self, request: Any) -> None:
        """As `pagedkv.CacheManager.free`."""
        self._core.free(request)

    def free_page_hashes(self, request: Any) -> None:
        """As `pagedkv.CacheManager.free_page_hashes`."""
        self._core.free_page_hashes(request)

    def get_page_ids(self, request_id: str) -> tuple[list[int], ...]:
        """As `pagedkv.CacheManager.get_page_ids`."""
        return self._core.get_page_ids(request_id)

    def get_num_common_prefix_pages(self, request: Any, num_scheduled_requests: int) -> list[int]:
        """As `pagedkv.CacheManager.get_num_common_prefix_pages`."""
        return self._core.get_num_common_prefix_pages(request, num_scheduled_requests)

    def create_empty_page_list(self) -> CachePages:
        """As `pagedkv.CacheManager.create_empty_page_list`."""
        return self._core.create_empty_page_list()

    def reset_prefix_cache(self) -> bool:
        """As `pagedkv.CacheManager.reset_prefix_cache`."""
        return self._core.reset_prefix_cache()

    def check_invariants(self) -> None:
        """As `pagedkv.CacheManager.check_invariants`."""
        self._core.check_invariants()

    def _allocate_from_parts(
        self,
        request: Any,
        num_new_tokens: int,
        num_new_computed_tokens: int,
        new_computed_pages: CachePages | None,
        num_lookahead_tokens: int,
        delay_cache_pages: bool,
        dp_shard_hint: int | None,
        data_parallel_size: int | None,
    ) -> CachePages | None:
        """Allocates step by step through a coordinator and a pool that are not ours.

        EasyDeL's tests put such managers together: `object.__new__(CacheManager)` with stand-ins.
        """
        manager: Any = self
        coordinator, pool, request_id = manager.coordinator, manager.page_pool, request.request_id
        if num_new_tokens < 1:
            raise ValueError("[CacheManager.allocate_slots] num_new_tokens must be greater than 0")
        cached: tuple[list[Any], ...] = tuple([] for _ in manager.kv_cache_groups)
        if new_computed_pages is not None:
            cached = new_computed_pages.pages
        coordinator.remove_skipped_pages(request_id, request.num_computed_tokens)
        num_computed = request.num_computed_tokens + num_new_computed_tokens
        num_tokens = min(
            num_computed + num_new_tokens + num_lookahead_tokens, manager.max_model_len
        )
        num_wanted = coordinator.get_num_pages_to_allocate(
            request_id=request_id, num_tokens=num_tokens, new_computed_pages=cached
        )
        if num_wanted > pool.get_num_free_pages():
            return None
        if manager.enable_caching:
            pool.touch(cached)
        coordinator.save_new_computed_pages(request_id, cached)
        try:
            pages = coordinator.allocate_new_pages(
                request_id,
                num_tokens,
                dp_shard_hint=dp_shard_hint,
                data_parallel_size=data_parallel_size,
            )
        except ValueError:  # a shard is full
            coordinator.rollback_new_computed_pages(request_id, cached)
            if manager.enable_caching:
                for group in cached:
                    pool.free_pages(group)
            return None
        if manager.enable_caching and not delay_cache_pages:
            coordinator.cache_pages(
                request,
                manager.req_to_page_hashes[request_id],
                min(num_computed + num_new_tokens, request.num_tokens),
            )
        return CachePages(pages)
