"""`easydel.inference.esurge.core.interface`: what layers keep."""

from pagedkv import (
    AttentionSpec,
    CacheGroupsConfig,
    CacheGroupSpec,
    CacheSpec,
    ChunkedLocalAttentionSpec,
    FullAttentionSpec,
    MambaSpec,
    RuntimePageBudgetEstimate,
    SlidingWindowSpec,
    create_kv_cache_specs_from_config,
    estimate_runtime_page_budget,
)

__all__ = [
    "AttentionSpec",
    "CacheGroupSpec",
    "CacheGroupsConfig",
    "CacheSpec",
    "ChunkedLocalAttentionSpec",
    "FullAttentionSpec",
    "MambaSpec",
    "RuntimePageBudgetEstimate",
    "SlidingWindowSpec",
    "create_kv_cache_specs_from_config",
    "estimate_runtime_page_budget",
]
