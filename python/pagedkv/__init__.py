"""Paged KV-cache engine for JAX serving stacks.

The control plane (`CacheManager` and what it is made of) needs no JAX. The data plane is
`KVPool`, or `PagedAttentionCache` with the names of EasyDeL 0.1.3, and below them the ops of
`pagedkv.ops`; JAX is imported when they are.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pagedkv import hashing as hashing
from pagedkv._core import AttentionSpec as AttentionSpec
from pagedkv._core import CacheGroupsConfig as CacheGroupsConfig
from pagedkv._core import CacheGroupSpec as CacheGroupSpec
from pagedkv._core import CacheManager as CacheManager
from pagedkv._core import CachePages as CachePages
from pagedkv._core import CacheSpec as CacheSpec
from pagedkv._core import ChunkedLocalAttentionSpec as ChunkedLocalAttentionSpec
from pagedkv._core import CrossAttentionSpec as CrossAttentionSpec
from pagedkv._core import FullAttentionSpec as FullAttentionSpec
from pagedkv._core import Histogram as Histogram
from pagedkv._core import MambaSpec as MambaSpec
from pagedkv._core import ManagerStats as ManagerStats
from pagedkv._core import MultimodalItem as MultimodalItem
from pagedkv._core import PageHasher as PageHasher
from pagedkv._core import PagePool as PagePool
from pagedkv._core import PagePoolView as PagePoolView
from pagedkv._core import PagesCleared as PagesCleared
from pagedkv._core import PagesRemoved as PagesRemoved
from pagedkv._core import PagesStored as PagesStored
from pagedkv._core import PromptEmbeds as PromptEmbeds
from pagedkv._core import ReplayDifference as ReplayDifference
from pagedkv._core import ReplayReport as ReplayReport
from pagedkv._core import Request as Request
from pagedkv._core import ResidencyStats as ResidencyStats
from pagedkv._core import Retention as Retention
from pagedkv._core import RetentionRange as RetentionRange
from pagedkv._core import SinkFullAttentionSpec as SinkFullAttentionSpec
from pagedkv._core import SlidingWindowSpec as SlidingWindowSpec
from pagedkv._core import StepFork as StepFork
from pagedkv._core import StepGrant as StepGrant
from pagedkv._core import hash_algorithms as hash_algorithms
from pagedkv._core import hash_page as hash_page
from pagedkv._core import none_hash as none_hash
from pagedkv._core import replay_ops as replay_ops
from pagedkv.hashing import PageHash as PageHash
from pagedkv.hashing import PageHashWithGroupId as PageHashWithGroupId
from pagedkv.hashing import hash_page_tokens as hash_page_tokens
from pagedkv.hashing import hash_request_tokens as hash_request_tokens
from pagedkv.hashing import init_none_hash as init_none_hash
from pagedkv.layouts import KVLayout as KVLayout

if TYPE_CHECKING:
    NONE_HASH: int
    from pagedkv.cache import PagedAttentionCache as PagedAttentionCache
    from pagedkv.cache import PagedAttentionCacheManager as PagedAttentionCacheManager
    from pagedkv.cache import PagedAttentionCacheMetaData as PagedAttentionCacheMetaData
    from pagedkv.cache import PagedAttentionCacheView as PagedAttentionCacheView
    from pagedkv.cache import PagedAttentionMetadata as PagedAttentionMetadata
    from pagedkv.kv_pool import KVPool as KVPool
    from pagedkv.pages import CachePage as CachePage
    from pagedkv.pages import FreeCachePageQueue as FreeCachePageQueue
    from pagedkv.planning import DoesNotFitError as DoesNotFitError
    from pagedkv.planning import MemoryPlan as MemoryPlan
    from pagedkv.planning import plan_memory as plan_memory
    from pagedkv.specs import RuntimePageBudgetEstimate as RuntimePageBudgetEstimate
    from pagedkv.specs import create_kv_cache_specs_from_config as create_kv_cache_specs_from_config
    from pagedkv.specs import estimate_runtime_page_budget as estimate_runtime_page_budget

# Where the names are that import JAX, or take a while to import.
_LAZY = {
    "KVPool": "pagedkv.kv_pool",
    "PagedAttentionCache": "pagedkv.cache",
    "PagedAttentionCacheManager": "pagedkv.cache",
    "PagedAttentionCacheMetaData": "pagedkv.cache",
    "PagedAttentionCacheView": "pagedkv.cache",
    "PagedAttentionMetadata": "pagedkv.cache",
    "CachePage": "pagedkv.pages",
    "FreeCachePageQueue": "pagedkv.pages",
    "DoesNotFitError": "pagedkv.planning",
    "MemoryPlan": "pagedkv.planning",
    "plan_memory": "pagedkv.planning",
    "RuntimePageBudgetEstimate": "pagedkv.specs",
    "create_kv_cache_specs_from_config": "pagedkv.specs",
    "estimate_runtime_page_budget": "pagedkv.specs",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = globals()[name] = getattr(importlib.import_module(_LAZY[name]), name)
        return value
    if name == "NONE_HASH":  # which `init_none_hash` changes
        return hashing.NONE_HASH
    raise AttributeError(f"module 'pagedkv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
