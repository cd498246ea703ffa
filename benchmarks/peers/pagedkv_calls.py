"""pagedkv in place of EasyDeL's manager, as the peer benchmark drives it: see run.py.

The same calls, with EasyDeL's own request objects.
"""

from typing import Any

from adapters import easydel_core
from adapters.base import BaseAdapter, PoolConfig
from pagedkv.compat.easydel import (
    CacheGroupSpec,
    CacheManager,
    FullAttentionSpec,
    SlidingWindowSpec,
)


class Adapter(easydel_core.Adapter):
    """EasyDeL's adapter with our manager."""

    name = "pagedkv_calls"
    version = "0.1.0"
    hash_names = ("sha256_cbor",)

    def __init__(self, cfg: PoolConfig) -> None:
        BaseAdapter.__init__(self, cfg)
        layout = (cfg.page_size, 8, 128, "bfloat16")
        groups = [CacheGroupSpec(FullAttentionSpec(*layout))]
        if cfg.window is not None:
            groups.append(CacheGroupSpec(SlidingWindowSpec(*layout, sliding_window=cfg.window)))
        self.m = CacheManager(cfg.num_pages, groups, cfg.max_model_len, cfg.caching)
        self._hit: dict[str, Any] = {}

    def hash_prompt(self, req: Any) -> None:
        """`get_computed_pages` hashes: part of the look-up."""

    def num_cached(self) -> int:
        return self.m.page_pool._core.num_cached_pages
