"""Stand-in for `easydel.inference.esurge.core` of EasyDeL 0.3.0: same names, modules and behaviour.

    >>> from pagedkv.compat.easydel import CacheManager

Page ids, their order, hits and usage are EasyDeL's; its bugs are not. docs/schedulers.md lists
every difference.
"""

from .coordinator import CacheCoordinator as CacheCoordinator
from .coordinator import CacheCoordinatorNoPrefixCache as CacheCoordinatorNoPrefixCache
from .coordinator import HybridCacheCoordinator as HybridCacheCoordinator
from .coordinator import UnitaryCacheCoordinator as UnitaryCacheCoordinator
from .coordinator import get_kv_cache_coordinator as get_kv_cache_coordinator
from .dp_sharding import dp_shard_for_page_id as dp_shard_for_page_id
from .dp_sharding import dp_shard_page_bounds as dp_shard_page_bounds
from .dp_sharding import pages_per_dp_shard as pages_per_dp_shard
from .dp_sharding import usable_pages_count as usable_pages_count
from .interface import AttentionSpec as AttentionSpec
from .interface import CacheGroupsConfig as CacheGroupsConfig
from .interface import CacheGroupSpec as CacheGroupSpec
from .interface import CacheSpec as CacheSpec
from .interface import ChunkedLocalAttentionSpec as ChunkedLocalAttentionSpec
from .interface import FullAttentionSpec as FullAttentionSpec
from .interface import MambaSpec as MambaSpec
from .interface import RuntimePageBudgetEstimate as RuntimePageBudgetEstimate
from .interface import SlidingWindowSpec as SlidingWindowSpec
from .interface import create_kv_cache_specs_from_config as create_kv_cache_specs_from_config
from .interface import estimate_runtime_page_budget as estimate_runtime_page_budget
from .manager import CacheManager as CacheManager
from .manager import CachePages as CachePages
from .page_pool import PagePool as PagePool
from .single_type_cache_manager import ChunkedLocalAttentionManager as ChunkedLocalAttentionManager
from .single_type_cache_manager import FullAttentionManager as FullAttentionManager
from .single_type_cache_manager import MambaManager as MambaManager
from .single_type_cache_manager import SingleTypeCacheManager as SingleTypeCacheManager
from .single_type_cache_manager import SlidingWindowManager as SlidingWindowManager
from .single_type_cache_manager import (
    get_manager_for_kv_cache_spec as get_manager_for_kv_cache_spec,
)
from .utils import CachePage as CachePage
from .utils import FreeCachePageQueue as FreeCachePageQueue
from .utils import PageHash as PageHash
from .utils import PageHashWithGroupId as PageHashWithGroupId
from .utils import hash_page_tokens as hash_page_tokens
from .utils import hash_request_tokens as hash_request_tokens
from .utils import init_none_hash as init_none_hash
