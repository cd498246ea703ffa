"""`easydel.inference.esurge.core.interface`: what layers keep."""

from pagedkv import AttentionSpec as AttentionSpec
from pagedkv import CacheGroupsConfig as CacheGroupsConfig
from pagedkv import CacheGroupSpec as CacheGroupSpec
from pagedkv import CacheSpec as CacheSpec
from pagedkv import ChunkedLocalAttentionSpec as ChunkedLocalAttentionSpec
from pagedkv import FullAttentionSpec as FullAttentionSpec
from pagedkv import MambaSpec as MambaSpec
from pagedkv import RuntimePageBudgetEstimate as RuntimePageBudgetEstimate
from pagedkv import SlidingWindowSpec as SlidingWindowSpec
from pagedkv import create_kv_cache_specs_from_config as create_kv_cache_specs_from_config
from pagedkv import estimate_runtime_page_budget as estimate_runtime_page_budget
